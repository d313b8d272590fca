"""FoldScan: cross-validated deep-learning models from a folder of scans."""

__version__ = "0.6.0"
