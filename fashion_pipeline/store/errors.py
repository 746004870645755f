"""What can go wrong with a data root."""


class StorageError(RuntimeError):
    """Something on disk that is missing or cannot be read; the message names it and the mend."""


class DamagedError(StorageError):
    """A file that does not hold what was written to it; what can be made again may be removed."""


class NewerVersionError(StorageError):
    """Something that a later version of the program wrote: it is refused, and left as it is."""


class LockedError(StorageError):
    """Somebody else holds a lock; the message says who, and since when."""
