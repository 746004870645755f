"""What can go wrong with a data root."""


class StorageError(RuntimeError):
    """Something on disk that is missing or cannot be read; the message names it and the mend."""


class LockedError(StorageError):
    """Somebody else holds a lock; the message says who, and since when."""
