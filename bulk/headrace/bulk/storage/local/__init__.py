"""Files on disks of the worker, or mounted there."""
