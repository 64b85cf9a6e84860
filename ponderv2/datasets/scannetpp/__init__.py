"""ScanNet++ as it is downloaded: laser scans and the classes of its benchmark."""
