"""FoldScan: cross-validated deep-learning models from a folder of scans."""
