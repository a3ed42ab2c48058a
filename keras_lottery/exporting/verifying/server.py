"""The real TensorFlow Serving, where it is installed: asked by REST and gRPC.

Started on this machine with a copy of one version, and stopped again.
"""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import numpy as np

from keras_lottery.errors import TicketError

PROGRAM = "tensorflow_model_server"
NAME = "verified"
WAIT = 120  # seconds until a version has to be available
ANSWER = 60  # seconds for one answer
STOP = 10  # seconds until it is killed
# JSON has neither of these numbers' exact digits.
NOT_IN_JSON = ("float16", "bfloat16")


class Server:
    """A `tensorflow_model_server` that serves one version; a context manager.

    Args:
        path: The version directory.
        program: Path of the server.
        wait: Seconds until it has to be available.

    Raises:
        TicketError: It ends, does not load the version, or takes too long.
    """

    def __init__(self, path, program, wait=None):
        self._path, self._program = path, program
        self._wait = WAIT if wait is None else wait

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory()
        base = os.path.join(self._folder.name, NAME)
        shutil.copytree(
            self._path, os.path.join(base, "1"), copy_function=_linked
        )
        self.grpc_port, self._rest_port = _free_ports(2)
        self._log = os.path.join(self._folder.name, "log")
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    f"--port={self.grpc_port}",
                    f"--rest_api_port={self._rest_port}",
                    f"--model_name={NAME}",
                    f"--model_base_path={base}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self._until_available()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error):
        self._process.terminate()
        try:
            self._process.wait(STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    def rest(self, question=None):
        """Returns the answer to JSON, or the state of the model."""
        ask = "" if question is None else ":predict"
        url = f"http://127.0.0.1:{self._rest_port}/v1/models/{NAME}{ask}"
        data = None if question is None else json.dumps(question).encode()
        request = urllib.request.Request(
            url, data, {"Content-Type": "application/json"}
        )
        # A proxy, which the environment may name, is not this machine.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=ANSWER) as answer:
            return json.load(answer)

    def _until_available(self):
        end = time.monotonic() + self._wait
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise TicketError(f"{PROGRAM} ended: {self._said()}")
            state, message = self._state()
            if state == "AVAILABLE":
                return
            if state == "END":
                raise TicketError(f"{PROGRAM} does not load it: {message}")
            time.sleep(0.1)
        raise TicketError(
            f"{PROGRAM} was not available after {self._wait} seconds: "
            f"{self._said()}"
        )

    def _state(self):
        """Returns (state, message) of the version, None while it starts."""
        try:
            (version,) = self.rest()["model_version_status"]
            message = version.get("status", {}).get("error_message", "")
            return version["state"], message
        except (OSError, ValueError, KeyError):
            return None, ""

    def _said(self):
        with open(self._log, errors="replace") as log:
            return log.read()[-500:].strip() or "it said nothing"


def by_columns(server, inputs, outputs):
    """Returns the answer by REST, asked input by input (`"inputs"`)."""
    question = {name: value.tolist() for name, value in inputs.items()}
    found = server.rest({"inputs": question})["outputs"]
    # A single output comes without its name.
    return found if isinstance(found, dict) else {next(iter(outputs)): found}


def by_rows(server, inputs, outputs):
    """Returns the answer by REST, asked row by row (`"instances"`)."""
    columns = {name: value.tolist() for name, value in inputs.items()}
    rows = [
        dict(zip(columns, row, strict=True))
        for row in zip(*columns.values(), strict=True)
    ]
    found = server.rest({"instances": rows})["predictions"]
    if not isinstance(found[0], dict):
        return {next(iter(outputs)): found}
    return {name: [row[name] for row in found] for name in found[0]}


def by_grpc(server, inputs, outputs):
    """Returns the answer by gRPC."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2
    from tensorflow_serving.apis import prediction_service_pb2_grpc as service

    del outputs
    request = predict_pb2.PredictRequest()
    request.model_spec.name = NAME
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    options = [
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
    ]
    address = f"127.0.0.1:{server.grpc_port}"
    with grpc.insecure_channel(address, options) as channel:
        stub = service.PredictionServiceStub(channel)
        try:
            found = stub.Predict(request, timeout=ANSWER).outputs
        except grpc.RpcError as error:
            raise TicketError(error.details()) from error
    return {name: tf.make_ndarray(found[name]) for name in found}


WAYS = {
    'REST ("inputs")': by_columns,
    'REST ("instances")': by_rows,
    "gRPC": by_grpc,
}


def ask(server, way, inputs, outputs):
    """Returns what a server answers, as arrays of the expected dtypes.

    Args:
        server: A `Server`.
        way: Key of `WAYS`.
        inputs: Dict from name to array.
        outputs: Dict of the expected arrays, for names and dtypes.

    Raises:
        TicketError: It answers with an error, or something else.
    """
    try:
        found = WAYS[way](server, inputs, outputs)
        return {
            name: np.asarray(value, getattr(outputs.get(name), "dtype", None))
            for name, value in found.items()
        }
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")[:500]
        raise TicketError(f"{error.code} {said}") from error
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise TicketError(f"no answer that can be read: {error!r}") from error


def possible(way, inputs, outputs):
    """Returns whether a way carries such arrays as they are."""
    everything = [*inputs.values(), *outputs.values()]
    if way == "gRPC":
        return True
    if any(str(value.dtype) in NOT_IN_JSON for value in everything):
        return False
    # Rows need as many rows everywhere, and one at least.
    rows = {value.shape[:1] for value in everything}
    return "instances" not in way or (len(rows) == 1 and rows.pop() > (0,))


def _linked(source, target):
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
