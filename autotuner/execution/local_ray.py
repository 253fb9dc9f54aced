"""A program that is a local Ray: starts one, says its address, and is it until it ends.

Run under a guard, so that all of Ray's processes end with the driver they were started for,
however it died: Ray's own agents outlive a killed driver by more than ten seconds.
"""

from __future__ import annotations

import logging
import signal
import sys
import time

import psutil
import ray

OBJECT_STORE_BYTES = 100 * 2**20
"""Ray's shared memory: trials pass a few kilobytes."""

WATCH_SECONDS = 0.5


def main() -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    context = ray.init(
        address="local",
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    print(context.address_info["address"], flush=True)
    # Ray's workers outlive a killed raylet for as long as it is a zombie of ours. A Ray that
    # lost a part is of no use to the study, so it ends, and the guard ends the rest.
    while all(part.status() != psutil.STATUS_ZOMBIE for part in psutil.Process().children()):
        time.sleep(WATCH_SECONDS)
    sys.exit("a part of Ray died")


if __name__ == "__main__":
    main()
