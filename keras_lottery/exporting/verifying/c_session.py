"""A SavedModel in a session of TensorFlow's C API: what TF Serving runs.

`TF_LoadSessionFromSavedModel` is the C++ loader that TF Serving calls. Nothing
here imports TensorFlow's Python.
"""

import os
import time

from keras_lottery.exporting.verifying import c_library


class Session:
    """A SavedModel, loaded by `TF_LoadSessionFromSavedModel`.

    Args:
        path: Directory of the SavedModel.
        threads: Of one operation, and operations at a time; 1 to 127.
        directory: Of TensorFlow's libraries; see `c_library`.
        tag: Of the meta graph.

    Raises:
        SessionError: It does not load; the message is TensorFlow's.
    """

    def __init__(self, path, threads=1, directory=None, tag="serve"):
        if threads not in range(1, 128):
            raise ValueError(f"`threads` must be 1 to 127, got {threads!r}.")
        self._tf = c_library.library(directory)
        self._session = None
        self._status = self._tf.TF_NewStatus()
        self._graph = self._tf.TF_NewGraph()
        try:
            self._session = self._load(path, threads, tag)
        except c_library.SessionError as error:
            self.close()
            raise c_library.SessionError(
                f"{path} does not load: {error}"
            ) from None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def request(self, feeds, fetches):
        """Returns a `Request`: what is fed and fetched, ready to run.

        Args:
            feeds: Dict from place in the graph (`"x:0"`) to array.
            fetches: List of places.
        """
        return Request(self._tf, self._session, self._place, feeds, fetches)

    def run(self, feeds, fetches):
        """Returns the arrays at the places `fetches`; see `request`."""
        with self.request(feeds, fetches) as request:
            return request.run()

    def close(self):
        """Releases the session and its graph."""
        if self._session:
            self._tf.TF_CloseSession(self._session, self._status)
            self._tf.TF_DeleteSession(self._session, self._status)
        if self._graph:
            self._tf.TF_DeleteGraph(self._graph)
            self._tf.TF_DeleteStatus(self._status)
        self._session = self._graph = None

    def _load(self, path, threads, tag):
        options = self._tf.TF_NewSessionOptions()
        # A ConfigProto by hand: fields 2 and 5, intra_ and
        # inter_op_parallelism_threads.
        config = bytes([2 << 3, threads, 5 << 3, threads])
        try:
            self._tf.TF_SetConfig(options, config, len(config), self._status)
            c_library.check(self._tf, self._status)
            session = self._tf.TF_LoadSessionFromSavedModel(
                options,
                None,
                os.fsencode(path),
                (c_library.TEXT * 1)(tag.encode()),
                1,
                self._graph,
                None,
                self._status,
            )
            c_library.check(self._tf, self._status)
            return session
        finally:
            self._tf.TF_DeleteSessionOptions(options)

    def _place(self, place):
        name, _, index = place.partition(":")
        found = self._tf.TF_GraphOperationByName(self._graph, name.encode())
        index = int(index or 0)
        # What is out of range would be read nevertheless.
        if not found or index >= self._tf.TF_OperationNumOutputs(found):
            raise c_library.SessionError(f"The graph has no {place!r}.")
        return c_library.Output(found, index)


class Request:
    """Feeds and fetches of a session; made by `Session.request`."""

    def __init__(self, tf, session, place, feeds, fetches):
        self._tf, self._session = tf, session
        self._at = [place(name) for name in feeds]
        self._wanted = [place(name) for name in fetches]
        self._status = tf.TF_NewStatus()
        self._tensors = []
        try:
            for value in feeds.values():
                self._tensors.append(c_library.tensor(tf, value))
        except ValueError:
            self.close()
            raise
        count = len(self._wanted)
        self._results = (c_library.POINTER * count)()
        self._arguments = (
            (session, None)
            + ((c_library.Output * len(self._at))(*self._at),)
            + (
                (c_library.POINTER * len(self._tensors))(*self._tensors),
                len(self._at),
            )
            + ((c_library.Output * count)(*self._wanted), self._results, count)
            + (None, 0, None, self._status)
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def run(self):
        """Returns a list of arrays."""
        self._tf.TF_SessionRun(*self._arguments)
        try:
            c_library.check(self._tf, self._status)
            return [
                c_library.array(self._tf, result) for result in self._results
            ]
        finally:
            self._release()

    def seconds(self):
        """Returns how long one run took, of TensorFlow alone."""
        run, arguments = self._tf.TF_SessionRun, self._arguments
        began = time.perf_counter()
        run(*arguments)
        spent = time.perf_counter() - began
        try:
            c_library.check(self._tf, self._status)
        finally:
            self._release()
        return spent

    def close(self):
        """Releases what is fed."""
        for tensor in self._tensors:
            self._tf.TF_DeleteTensor(tensor)
        if self._status:
            self._tf.TF_DeleteStatus(self._status)
        self._tensors, self._status = [], None

    def _release(self):
        for i, result in enumerate(self._results):
            if result:
                self._tf.TF_DeleteTensor(result)
            self._results[i] = None
