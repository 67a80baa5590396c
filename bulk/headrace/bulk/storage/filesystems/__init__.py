"""All other storages, such as sftp://, hdfs:// and hf://, through fsspec."""
