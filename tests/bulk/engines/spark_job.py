"""A Spark job that scores with headrace: `python spark_job.py MODELS OUTPUT`, in an environment of its own."""

from __future__ import annotations

import sys

from pyspark.sql import SparkSession  # type: ignore[import-not-found]
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema  # type: ignore[import-not-found]

import headrace.bulk

ROWS = 500


def main(models: str, output: str) -> None:
    """Score made rows of the model `m` and write them as Parquet."""
    spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    rows = [(row, [float(row), -float(row)], row % 12) for row in range(ROWS)]
    table = spark.createDataFrame(rows, "id int, x array<float>, at long")
    score = headrace.bulk.scorer("m", models=models)
    schema = from_arrow_schema(score.schema(to_arrow_schema(table.schema)))
    table.mapInPandas(score.map_in_pandas, schema).write.parquet(output)


main(*sys.argv[1:])
