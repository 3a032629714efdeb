#!/bin/bash
# Begins a study on the Ray cluster of this machine, or goes on with it where it has begun.
#
#   run-or-resume.sh STORAGE NAME FILE [OPTION ...]
#
# For places that start a driver again after it was lost: a requeued job, a restarted pod. They run
# one at a time, so that whoever is noted as the study's driver is gone: hence --force-unlock.
# OPTION goes to both verbs, such as --plugin my_models or --wait-for-resources 1h. The cluster is
# RAY_ADDRESS, else the one that `ray start` began here.
set -euo pipefail
storage=$1 name=$2 file=$3
shift 3
export RAY_ADDRESS=${RAY_ADDRESS:-auto}
if [ -e "$storage/$name/manifest.json" ]; then
    exec samtune resume "$name" --storage "$storage" --force-unlock "$@"
fi
exec samtune run "$file" --name "$name" --storage "$storage" "$@"
