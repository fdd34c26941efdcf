//! Runs the real binaries as processes on this machine and judges what arrives.
