"""Import numpy with a linear algebra library that uses one thread per caller.

Owns: the first import of numpy in this process, when it is ours to make.
Does not own: parallelism; callers run as many threads or processes as they want cores used.

Always holds: what the user set (OPENBLAS_NUM_THREADS and the like) or imported before stays as it is; the
environment is afterwards what it was before. Only speed depends on it: embedding 3,080 texts on two cores,
two callers with one BLAS thread each took 13 s of processor time, one caller with two BLAS threads 18 to 22 s
and longer, because BLAS threads spin between multiplications.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from typing import Final

_VARIABLES: Final = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_lock: Final = threading.Lock()


def import_numpy() -> None:
    """Import numpy, once; the library reads its variables while it loads, so they are set only that long."""
    with _lock:
        if "numpy" in sys.modules:
            return
        if "OMP_NUM_THREADS" in os.environ:
            ours: list[str] = []
        else:
            ours = [name for name in _VARIABLES if name not in os.environ]
        os.environ.update(dict.fromkeys(ours, "1"))
        try:
            importlib.import_module("numpy")
        finally:
            for name in ours:
                del os.environ[name]
