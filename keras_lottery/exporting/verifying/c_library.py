"""TensorFlow's C++ libraries through their C API, without its Python."""

import ctypes
import importlib.util
import os

# TensorFlow's libraries of 2.16 and 2.19 crash where `numpy.random` is loaded
# after them.
import ml_dtypes
import numpy as np
import numpy.random

# TF_DataType of tf_datatype.h, which graphs, C and Python share.
DTYPES = {
    1: np.dtype(np.float32),
    2: np.dtype(np.float64),
    3: np.dtype(np.int32),
    4: np.dtype(np.uint8),
    5: np.dtype(np.int16),
    6: np.dtype(np.int8),
    9: np.dtype(np.int64),
    10: np.dtype(np.bool_),
    14: np.dtype(ml_dtypes.bfloat16),
    17: np.dtype(np.uint16),
    19: np.dtype(np.float16),
    22: np.dtype(np.uint32),
    23: np.dtype(np.uint64),
}
CODES = {dtype: code for code, dtype in DTYPES.items()}
ENVIRONMENT = "KERAS_LOTTERY_LIBTENSORFLOW"

POINTER = ctypes.c_void_p
TEXT = ctypes.c_char_p


class Output(ctypes.Structure):
    """Where a tensor leaves an operation: TF_Output."""

    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


_P, _TEXT = POINTER, TEXT
_INT, _SIZE = ctypes.c_int, ctypes.c_size_t
_OUTPUTS, _POINTERS = ctypes.POINTER(Output), ctypes.POINTER(_P)
_SHAPE = ctypes.POINTER(ctypes.c_int64)
# Function of c_api.h: (what it returns, what it takes).
_FUNCTIONS = {
    "AllocateTensor": (_P, [_INT, _SHAPE, _INT, _SIZE]),
    "CloseSession": (None, [_P, _P]),
    "DeleteGraph": (None, [_P]),
    "DeleteSession": (None, [_P, _P]),
    "DeleteSessionOptions": (None, [_P]),
    "DeleteStatus": (None, [_P]),
    "DeleteTensor": (None, [_P]),
    "Dim": (ctypes.c_int64, [_P, _INT]),
    "GetCode": (_INT, [_P]),
    "GraphOperationByName": (_P, [_P, _TEXT]),
    "LoadSessionFromSavedModel": (
        _P,
        [_P, _P, _TEXT, ctypes.POINTER(_TEXT), _INT, _P, _P, _P],
    ),
    "Message": (_TEXT, [_P]),
    "NewGraph": (_P, []),
    "NewSessionOptions": (_P, []),
    "NewStatus": (_P, []),
    "NumDims": (_INT, [_P]),
    "OperationNumOutputs": (_INT, [_P]),
    "SessionRun": (
        None,
        [_P, _P, _OUTPUTS, _POINTERS, _INT]
        + [_OUTPUTS, _POINTERS, _INT, _POINTERS, _INT, _P, _P],
    ),
    "SetConfig": (None, [_P, _TEXT, _SIZE, _P]),
    "TensorByteSize": (_SIZE, [_P]),
    "TensorData": (_P, [_P]),
    "TensorType": (_INT, [_P]),
    "Version": (_TEXT, []),
}
_loaded = {}


class SessionError(Exception):
    """What TensorFlow says of an export that does not load or run."""


def library(directory=None):
    """Loads TensorFlow's C++ libraries, once per process.

    Args:
        directory: Where they lie, for another release than the installed one;
            the package's by default, or what the environment variable
            KERAS_LOTTERY_LIBTENSORFLOW says.

    Raises:
        SessionError: They are not there, or others have been loaded.
    """
    directory = directory or os.environ.get(ENVIRONMENT) or _package()
    directory = os.path.realpath(directory)
    if directory in _loaded:
        return _loaded[directory]
    if _loaded:
        raise SessionError(
            f"This process runs the TensorFlow of {next(iter(_loaded))}, and "
            f"cannot load that of {directory} too: use another process."
        )
    paths = [
        _library_file(directory, name)
        for name in ("tensorflow_framework", "tensorflow_cc")
    ]
    ctypes.CDLL(paths[0], mode=ctypes.RTLD_GLOBAL)
    found = ctypes.CDLL(paths[1])
    for name, (returned, taken) in _FUNCTIONS.items():
        function = getattr(found, f"TF_{name}")
        function.restype, function.argtypes = returned, taken
    _loaded[directory] = found
    return found


def version(directory=None):
    """Returns the release of the C++ libraries: `"2.21.0"`."""
    return library(directory).TF_Version().decode()


def check(tf, status):
    """Raises a SessionError with the message of a status that is one."""
    if tf.TF_GetCode(status):
        raise SessionError(tf.TF_Message(status).decode(errors="replace"))


def tensor(tf, value):
    """Returns a TF_Tensor with a copy of an array; delete it."""
    value = np.asarray(value)
    if value.dtype not in CODES:
        raise ValueError(
            f"Arrays of {value.dtype} cannot be fed; expected one of "
            f"{', '.join(str(dtype) for dtype in CODES)}."
        )
    value = np.ascontiguousarray(value).reshape(value.shape)
    shape = (ctypes.c_int64 * value.ndim)(*value.shape)
    code = CODES[value.dtype]
    made = tf.TF_AllocateTensor(code, shape, value.ndim, value.nbytes)
    ctypes.memmove(tf.TF_TensorData(made), value.ctypes.data, value.nbytes)
    return made


def array(tf, tensor):
    """Returns a copy of a TF_Tensor as an array."""
    code = tf.TF_TensorType(tensor)
    if code not in DTYPES:
        raise SessionError(f"An output has TF_DataType {code}: not a number.")
    shape = [tf.TF_Dim(tensor, i) for i in range(tf.TF_NumDims(tensor))]
    size = tf.TF_TensorByteSize(tensor)
    if not size:
        return np.zeros(shape, DTYPES[code])
    data = (ctypes.c_char * size).from_address(tf.TF_TensorData(tensor))
    return np.frombuffer(data, DTYPES[code]).reshape(shape).copy()


def _package():
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        raise SessionError(
            "TensorFlow is not installed, whose C++ libraries load the export."
        )
    return spec.submodule_search_locations[0]


def _library_file(directory, name):
    tried = [f"lib{name}.so.2", f"lib{name}.2.dylib", f"lib{name}.dylib"]
    for each in tried:
        path = os.path.join(directory, each)
        if os.path.exists(path):
            return path
    raise SessionError(
        f"{directory} holds none of {', '.join(tried)}. TensorFlow's packages "
        "for Linux and macOS do; name the directory of one with "
        f"{ENVIRONMENT}."
    )
