"""Messages of the servers' gRPC protocols: those parts that headrace speaks, under their own full names.

They live in descriptor pools of their own, so that `tensorflow-serving-api`, `tritonclient` or TensorFlow may be used
in the same process: in the pool of all, a second file with the same messages is an error.
"""
