"""The kombu channel: publishing, waiting, claiming, delivering and acknowledging."""
