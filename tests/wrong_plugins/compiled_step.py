"""Wrong programs that `compile` makes of a training step."""

import numpy as np

import polynet
from wrong_plugins import compiled, found, make_writable, run_steps


@found("test_compile_runs_the_steps_in_order", "compile, the state after 1 steps .* leaves")
def compile_drops_a_leaf(lib, plugin):
    def without_key(self, state, losses, before):
        return {name: part for name, part in state.items() if name != "key"}, lib.xp.stack(losses)

    plugin.compile = compiled(without_key)


@found("test_compile_runs_the_steps_in_order", "compile, .*: leaf 'step': .*not equal")
def compile_forgets_a_leaf(lib, plugin):
    def with_old_step(self, state, losses, before):
        return {**state, "step": before["step"]}, lib.xp.stack(losses)

    plugin.compile = compiled(with_old_step)


@found("test_compile_runs_the_steps_in_order", "compile, the losses of 3 steps .*not equal")
def compile_returns_the_losses_of_the_step_before(lib, plugin):
    def late(self, state, losses, before):
        return state, lib.xp.stack([losses[0], *losses[:-1]])

    plugin.compile = compiled(late)


@found("test_compile_runs_the_steps_in_order", "compile, the losses of 1 steps .*: the result is a")
def compile_returns_a_list_of_losses(lib, plugin):
    plugin.compile = compiled(lambda self, state, losses, before: (state, losses))


@found("test_compile_runs_the_steps_in_order", r"on 'loop:1': the result is on loop:0")
def compile_leaves_the_losses_on_the_default_device(lib, plugin):
    def moved(self, state, losses, before):
        return state, lib.Array(lib.xp.stack(losses).value, "loop:0")

    plugin.compile = compiled(moved)


@found("test_compile_overwrites_nothing_that_others_hold", "leaf 'losses of an earlier call")
def compile_reuses_a_buffer_that_the_caller_holds(lib, plugin):
    buffers = {}

    def overwritten(self, state, losses, before):
        new = lib.xp.stack(losses)
        buffer = buffers.setdefault((new.shape, new.device), new)
        buffer.value[...] = new.value
        return state, buffer

    plugin.compile = compiled(overwritten)


@found(
    "test_compile_returns_leaves_of_their_own",
    r"compile: 'state\.optimizer\.first' is 'state\.optimizer\.second' too",
)
def compile_returns_a_leaf_twice(lib, plugin):
    def merged(self, state, losses, before):
        first = state["optimizer"]["first"]
        slots = dict.fromkeys(state["optimizer"], first)
        return {**state, "optimizer": slots}, lib.xp.stack(losses)

    plugin.compile = compiled(merged)


@found(
    "test_compile_trains_as_the_loop_does", r"leaf 'params\.0\.weight' after 4 calls, in float64"
)
def compile_computes_in_float32(lib, plugin):
    def rounded(self, state, losses, before):
        def short(leaf):
            wide = leaf.value.dtype == np.float64
            return (
                lib.Array(leaf.value.astype("float32").astype("float64"), leaf.device)
                if wide
                else leaf
            )

        return polynet.tree.map(short, state), lib.xp.stack(losses)

    plugin.compile = compiled(rounded)


@found("test_a_step_that_must_be_one_program_is_or_raises", "step.required is true; expected NotC")
def compile_goes_on_one_operation_at_a_time(lib, plugin):
    def stacked(self, state, losses, before):
        return state, lib.xp.stack(losses)

    plugin.compile = compiled(stacked, refuses=False)


@found("test_compile_returns_leaves_of_their_own", r"first' shares memory with .*second': .*not eq")
def compile_returns_two_leaves_in_one_place(lib, plugin):
    make_writable(lib)

    def packed(self, state, losses, before):
        first = state["optimizer"]["first"]
        slots = {"first": first, "second": lib.Array(first.value, first.device)}
        return {**state, "optimizer": slots}, lib.xp.stack(losses)

    plugin.compile = compiled(packed)


@found("test_two_compiled_steps_are_two", "the second step compiled is not the one it was given")
def compile_remembers_its_first_step(lib, plugin):
    steps = []

    def compile_step(self, step):
        steps.append(step)

        def run(state, data, batches):
            state, losses = run_steps(steps[0], state, data, batches)
            return state, lib.xp.stack(losses)

        return run

    plugin.compile = compile_step


@found("test_compile_reads_nothing_on_the_host", "compile: its runner called to_host 3 times")
def compile_reads_the_losses_on_the_host(lib, plugin):
    def through_the_host(self, state, losses, before):
        host = np.stack([self.to_host(loss) for loss in losses])
        return state, self.from_host(host, losses[0].device)

    plugin.compile = compiled(through_the_host)
