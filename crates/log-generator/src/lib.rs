//! Writes stamped log lines at an exact rate, as a container or as a whole node.
