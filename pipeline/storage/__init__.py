"""Where files lie: this machine or an object store, and the lock on an output."""
