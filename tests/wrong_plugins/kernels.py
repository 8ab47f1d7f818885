"""Wrong kernels, each of relu."""

import numpy as np

from wrong_plugins import found, relu_kernel


@found("test_value", r"the kernel 'relu' of \[\(3, 4\)\], in float32: .*not equal")
def kernel_has_a_wrong_value(lib, plugin):
    plugin.kernels = {"relu": relu_kernel(lib, value=lambda x: np.maximum(x, 0.2))}


@found("test_gradient", r"gradient of the kernel 'relu' of .*, by array 0: .*not equal")
def kernel_has_a_wrong_gradient(lib, plugin):
    plugin.kernels = {"relu": relu_kernel(lib, slope=0.9)}


@found("test_results_and_gradients_stay", "kernel 'relu' .* device 'loop:1': the result is on loop")
def kernel_leaks_the_device(lib, plugin):
    def relu(xp, x):
        y, pullbacks = relu_kernel(lib)(xp, x)
        return lib.Array(y.value, "loop:0"), pullbacks

    plugin.kernels = {"relu": relu}


@found("test_kernel", r"the kernel 'relu' of \[\(3, 4\)\] changed an argument: .*not equal")
def kernel_changes_its_input(lib, plugin):
    plugin.kernels = {"relu": relu_kernel(lib, value=lambda x: np.maximum(x, 0, out=x))}


@found("test_kernel", "pullback 0 of the kernel 'relu' of .* changed the gradient it was given")
def pullback_writes_to_the_gradient(lib, plugin):
    def relu(xp, x):
        y, _ = relu_kernel(lib)(xp, x)

        def pullback(g):
            if not g.value.flags.writeable:  # as with somebody who has seen that error
                g = lib.Array(g.value.copy(), g.device)
            g.value[...] *= ~(x.value <= 0)
            return g

        return y, (pullback,)

    plugin.kernels = {"relu": relu}


@found("test_kernel", "pullback 0 of the kernel 'relu' of .* changed the result")
def pullback_writes_to_the_result(lib, plugin):
    def relu(xp, x):
        y, _ = relu_kernel(lib)(xp, x)

        def pullback(g):
            np.multiply(g.value, y.value != 0, out=y.value)
            return lib.Array(y.value.copy(), y.device)

        return y, (pullback,)

    plugin.kernels = {"relu": relu}


@found(
    "test_kernel", "pullback 0 of the kernel 'relu' of .* remembers an earlier call: .*not equal"
)
def pullback_remembers_its_first_answer(lib, plugin):
    def relu(xp, x):
        y, (pullback,) = relu_kernel(lib)(xp, x)
        answers = []

        def remembering(g):
            answers.append(pullback(g))
            return answers[0]

        return y, (remembering,)

    plugin.kernels = {"relu": relu}


@found("test_kernel_equals_its_definition", "the kernel 'relu' declines every sample")
def kernel_declines_everything(lib, plugin):
    plugin.kernels = {"relu": lambda xp, x: NotImplemented}


@found("test_every_kernel_replaces_a_composition", r"kernel 'rellu' .* Did you mean 'relu'")
def kernel_of_no_composition(lib, plugin):
    plugin.kernels = {"rellu": relu_kernel(lib)}
