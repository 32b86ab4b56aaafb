"""Tables as Streams: rows of CSV, Parquet, .npy and HDF5 files, DataFrames, arrays and sparse matrices."""

from kvae.data.tables.table import from_table

__all__ = ["from_table"]
