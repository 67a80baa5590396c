"""The ledger of bulk jobs: jobs, their input files, shards, bad rows; claims with attempt numbers as fences."""
