"""Object stores: S3 and its kin, Google Cloud Storage, Azure, through obstore."""
