"""A stand-in for tensorflow_model_server, for tests of what talks to it.

It takes the server's flags, and answers by the server's REST and gRPC, with
the C++ loader that the server has, and nothing else of it. STAND_IN in the
environment makes it misbehave: "wrong", "refuses", "stays".
"""

import http.server
import json
import os
import signal
import sys
from concurrent import futures

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc as service

from keras_lottery.exporting.verifying import c_library
from keras_lottery.exporting.verifying import c_session
from keras_lottery.exporting.verifying import inspection

KIND = os.environ.get("STAND_IN", "")


class Model:
    """Version 1 of a model, as far as requests see it."""

    def __init__(self, path):
        self.signature = inspection.signature(path)
        self.session = c_session.Session(path)

    def answer(self, inputs):
        if set(inputs) != set(self.signature.inputs):
            raise ValueError(f"inputs are {sorted(inputs)}")
        feeds = {self.signature.feeds[k]: v for k, v in inputs.items()}
        fetches = self.signature.fetches
        found = self.session.run(feeds, list(fetches.values()))
        # By more than what rounding could explain, and by little.
        off = 1.001 if KIND == "wrong" else 1
        return {
            name: (value * off).astype(value.dtype)
            for name, value in zip(fetches, found)
        }

    def dtype(self, name):
        return c_library.DTYPES[self.signature.inputs[name].dtype]


class Grpc(service.PredictionServiceServicer):
    """PredictionService.Predict."""

    def __init__(self, model, name):
        self.model, self.name = model, name

    def Predict(self, request, context):
        if request.model_spec.name != self.name:
            context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found")
        inputs = {k: tf.make_ndarray(v) for k, v in request.inputs.items()}
        try:
            found = self.model.answer(inputs)
        except (ValueError, c_library.SessionError) as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        response = predict_pb2.PredictResponse()
        for name, value in found.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response


class Rest(http.server.BaseHTTPRequestHandler):
    """GET /v1/models/NAME and POST /v1/models/NAME:predict."""

    model = name = None

    def do_GET(self):
        state = "AVAILABLE" if KIND != "refuses" else "END"
        status = {"error_code": "DATA_LOSS", "error_message": "zlib says no"}
        version = {"version": "1", "state": state, "status": status}
        self.reply(200, {"model_version_status": [version]})

    def do_POST(self):
        size = int(self.headers["Content-Length"])
        question = json.loads(self.rfile.read(size))
        if self.path != f"/v1/models/{self.name}:predict":
            return self.reply(404, {"error": "Servable not found"})
        try:
            self.reply(200, self.predict(question))
        except (ValueError, c_library.SessionError) as error:
            self.reply(400, {"error": str(error)})

    def predict(self, question):
        if "inputs" in question:
            found = self.answer(question["inputs"])
            alone = len(found) == 1
            return {"outputs": [*found.values()][0] if alone else found}
        rows = question["instances"]
        found = self.answer({k: [row[k] for row in rows] for k in rows[0]})
        if len(found) == 1:
            return {"predictions": [*found.values()][0]}
        columns = zip(*found.values())
        return {"predictions": [dict(zip(found, row)) for row in columns]}

    def answer(self, columns):
        found = self.model.answer(
            {k: np.array(v, self.model.dtype(k)) for k, v in columns.items()}
        )
        return {name: value.tolist() for name, value in found.items()}

    def reply(self, code, answer):
        content = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


def main():
    if KIND == "stays":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    flags = dict(word[2:].split("=", 1) for word in sys.argv[1:])
    model = Model(os.path.join(flags["model_base_path"], "1"))
    server = grpc.server(futures.ThreadPoolExecutor(2))
    service.add_PredictionServiceServicer_to_server(
        Grpc(model, flags["model_name"]), server
    )
    server.add_insecure_port(f"127.0.0.1:{flags['port']}")
    server.start()
    Rest.model, Rest.name = model, flags["model_name"]
    rest = http.server.ThreadingHTTPServer(
        ("127.0.0.1", int(flags["rest_api_port"])), Rest
    )
    rest.serve_forever()


if __name__ == "__main__":
    main()
