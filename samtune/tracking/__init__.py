"""MLflow, fed from the journals: one parent run a study, a child run a trial.

Shipping is a process of its own (`process.following`), so an MLflow that is slow or gone neither
stops nor slows a study: the journals are the queue. What was shipped can be shipped again without
doubling a point, since every point carries its journal's own time. `samtune sync` is the same code
(`shipper`) once more.
"""

from samtune.tracking.process import following, wait_until_shipped
from samtune.tracking.shipper import pending, sync
from samtune.tracking.store import tracking_uri, without_password

__all__ = [
    "following",
    "pending",
    "sync",
    "tracking_uri",
    "wait_until_shipped",
    "without_password",
]
