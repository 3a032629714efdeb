"""MLflow, fed from the journals: one parent run a study, a child run a trial.

Shipping is a process of its own (`process`, which `beside` starts), so an MLflow that is slow or
gone neither stops nor slows a study: the journals are the queue. What was shipped can be shipped
again without doubling a point, since every point carries its journal's own time. `samtune sync` is
the same code (`shipper`) once more.
"""

from samtune.secrets import without_password
from samtune.tracking.beside import following, wait_until_shipped
from samtune.tracking.housekeeping import delete_records
from samtune.tracking.pages import Pages, pages_of
from samtune.tracking.records import Report, pending
from samtune.tracking.shipper import sync
from samtune.tracking.store import Store, is_recorded, reach, store_of, tracking_uri

__all__ = [
    "Pages",
    "Report",
    "Store",
    "delete_records",
    "following",
    "is_recorded",
    "pages_of",
    "pending",
    "reach",
    "store_of",
    "sync",
    "tracking_uri",
    "wait_until_shipped",
    "without_password",
]
