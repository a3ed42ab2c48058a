"""What a wrapped model does in its own way: steps, losses, `compile`.

Keras's `fit` of the wrapper would run Keras's own methods and never ask the
wrapped model for its. So a model that overrides any of `METHODS` is compiled
itself, and runs its steps; any other is only called.
"""

import contextlib

import keras

from keras_lottery.training import keras_private
from keras_lottery.training.over_replicas import OverReplicas

METHODS = ("train_step", "test_step", "compute_loss", "compute_metrics")


class OwnMethods(OverReplicas):
    """A wrapper that hands on to `inner` what that does in its own way.

    Attributes:
        inner: The wrapped model; a subclass sets it.
        played: Object with an attribute `compiled_for`, the optimizer that
            `inner` steps by. (Keras would save one that it finds twice.)
    """

    def compile(self, *args, **kwargs):
        """Compiles as Keras does, or as the wrapped model does.

        Args:
            *args: What the wrapped model's own `compile` takes if it has one,
                else what `keras.Model.compile` does.
            **kwargs: The same, by name.

        Raises:
            ValueError: A `compile` of one's own that never calls Keras's.
        """
        if not self.has_own("compile"):
            super().compile(*args, **kwargs)
            return
        self.inner.compile(*args, **kwargs)
        self._adopt_compilation()

    def _adopt_compilation(self):
        """Compiles as the wrapped model has been, by itself."""
        if keras_private.compilation(self.inner) is None:
            raise ValueError(
                f"The `compile` of {type(self.inner).__name__} does not call "
                "Keras's, so that nothing can be trained: add "
                "`super().compile(...)` to it."
            )
        optimizer = self.inner.optimizer
        arguments = keras_private.compile_arguments(self.inner)
        arguments.update(optimizer=optimizer, auto_scale_loss=False)
        super().compile(**arguments)
        self._note_compiled()

    def get_compile_config(self):
        """Returns what `compile_from_config` takes, to be saved.

        What a `compile` of its own was given only the wrapped model can say:
        nothing, unless it has a `compile_from_config` of its own, too.
        """
        if not self.has_own("compile"):
            return super().get_compile_config()
        if not self.compiled or not self.has_own("compile_from_config"):
            return {}
        with self._lent_optimizer():
            return self.inner.get_compile_config()

    def compile_from_config(self, config):
        """Compiles a model that was loaded.

        Keras's own does nothing where `compile` is overridden, as it is here.
        """
        if self.has_own("compile") and not config:
            raise ValueError(
                f"What the `compile` of {type(self.inner).__name__} was given "
                "is not known here: call `compile` again, or give the model "
                "`get_compile_config` and `compile_from_config`."
            )
        if self.has_own("compile"):
            self.inner.compile_from_config(config)
            self._adopt_compilation()
        else:
            self.compile(**keras.saving.deserialize_keras_object(config))
        # Built, to be loaded. One that the wrapped model was loaded with
        # goes: the file has ours only.
        self.optimizers()

    def has_own(self, name):
        """Returns whether the wrapped model overrides a method of Keras's."""
        return getattr(type(self.inner), name) is not getattr(keras.Model, name)

    def has_own_step(self):
        """Returns whether the wrapped model runs its steps itself."""
        return any(map(self.has_own, METHODS))

    def optimizers(self):
        """Returns the optimizers that train, built; the compiled one first.

        A GAN keeps others as attributes. They are part of the state that is
        rewound.
        """
        others = []
        if self.has_own_step():
            self._compile_inner()
            held = vars(self.inner).items()
            others = keras_private.optimizers_in(
                value for name, value in held if name != "optimizer"
            )
            others = [each for each in others if each is not self.optimizer]
        keras_private.accompany(self.optimizer, others)
        for each in (self.optimizer, *others):
            if not each.built:
                keras_private.build(each, self.trainable_variables)
        return [self.optimizer, *others]

    def make_test_function(self, force=False):
        """As Keras does; metrics of the wrapped model are there before."""
        if self.has_own_step() and self.compiled:
            self._compile_inner()
        super().make_test_function(force)

    def train_step(self, data):
        """Runs the wrapped model's own step if it has one, else Keras's."""
        if not self.has_own_step():
            return super().train_step(data)
        with self._lent_optimizer():
            return self.inner.train_step(data)

    def test_step(self, data):
        """Runs the wrapped model's own step if it has one, else Keras's."""
        if not self.has_own_step():
            return super().test_step(data)
        self._compile_inner()
        return self.inner.test_step(data)

    def predict_step(self, data):
        """Runs the wrapped model's own step if it has one, else Keras's."""
        if self.has_own("predict_step"):
            return self.inner.predict_step(data)
        return super().predict_step(data)

    @property
    def metrics(self):
        """The metrics of whichever model runs the step."""
        if self.has_own_step():
            return self.inner.metrics
        return super().metrics

    @contextlib.contextmanager
    def _lent_optimizer(self):
        """Gives the wrapped model our optimizer for a while.

        Keras saves an optimizer once, and would find it there, where loading
        does not look for it.
        """
        self.inner.optimizer = self.optimizer
        try:
            yield
        finally:
            self.inner.optimizer = None

    def _compile_inner(self):
        """Compiles a model with steps of its own, with our optimizer.

        Not in `compile`, which need not have been called: a loaded model's
        optimizer may be replaced.
        """
        if self.played.compiled_for is not self.optimizer:
            arguments = keras_private.compile_arguments(self)
            arguments.update(optimizer=self.optimizer, auto_scale_loss=False)
            self.inner.compile(**arguments)
            self._note_compiled()

    def _note_compiled(self):
        self.inner.optimizer = None  # see `_lent_optimizer`
        self.played.compiled_for = self.optimizer
