"""FLOPs, HBM traffic and collectives of small programs, against closed forms and XLA's count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semmim_jax.planning import costs

MESH = {'data': 2, 'fsdp': 4}


def flops(f, *shapes) -> tuple[float, float]:
    """Ours and XLA's count of an uncompiled program."""
    lowered = jax.jit(f).lower(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
    ours = costs.read(lowered.as_text(dialect='hlo'), {'data': 1})
    return ours.flops, lowered.cost_analysis().get('flops', 0.0)


def test_a_product_costs_two_for_each_multiply_add():
    ours, _ = flops(lambda x, y: jnp.einsum('bij,bjk->bik', x, y), (3, 4, 5), (3, 5, 7))
    assert ours == 2 * 3 * 4 * 5 * 7


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(3, 7), st.integers(3, 7)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_convolutions_count_as_in_xla(size, kernel, stride, padding, dilation):
    def convolve(x, k):
        return jax.lax.conv_general_dilated(
            x,
            k,
            stride,
            [(pad, 1) for pad in padding],
            lhs_dilation=dilation,
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        )

    ours, xlas = flops(convolve, (2, *size, 3), (*kernel, 3, 5))
    assert ours == xlas


def test_a_loop_counts_as_often_as_it_runs():
    def f(x, kernels):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, kernels)[0]

    assert flops(f, (3, 5), (6, 5, 5))[0] == 6 * 2 * 3 * 5 * 5


# A TPU's program, shortened: an all-gather that spans three fusions, a product over a batch of 64
# written as a dilated convolution, a reduce-scatter; five trips, told by the condition alone.
LOOP = """
%condition (p: (s32[], f32[40,8])) -> pred[] {
  %five = s32[]{:T(128)} constant(5)
  %p = (s32[]{:T(128)}, f32[40,8]{1,0:T(8,128)}) parameter(0)
  %count = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%count, %five), direction=LT
}

%start (p.1: f32[10,8]) -> (f32[10,8], f32[40,8]) {
  %p.1 = f32[10,8]{1,0} parameter(0)
  %gather.1 = f32[40,8]{1,0} all-gather(%p.1), channel_id=7, replica_groups={{0,1,2,3},{4,5,6,7}}, \
dimensions={0}, use_global_device_ids=true, frontend_attributes={chain_id="0"}
  ROOT %call.1 = (f32[10,8]{1,0}, f32[40,8]{1,0}) custom-call(%gather.1), \
custom_call_target="AsyncCollectiveStart"
}

%middle (p.2: f32[10,8], p.3: bf16[64,12,512]) -> (bf16[64,12,12], f32[40,8]) {
  %p.2 = f32[10,8]{1,0} parameter(0)
  %p.3 = bf16[64,12,512]{2,1,0} parameter(1)
  %gather.2 = f32[40,8]{1,0} all-gather(%p.2), channel_id=7, replica_groups={{0,1,2,3},{4,5,6,7}}, \
dimensions={0}, use_global_device_ids=true, frontend_attributes={chain_id="0"}
  %product = bf16[64,12,12]{1,2,0} convolution(%p.3, %p.3), \
window={size=64 stride=63 lhs_dilate=64}, dim_labels=0bf_0oi->0bf
  ROOT %both = (bf16[64,12,12]{1,2,0}, f32[40,8]{1,0}) tuple(%product, %gather.2)
}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%all-reduce-scatter.1 (p.4: f32[40,8]) -> f32[10,8] {
  %p.4 = f32[40,8]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %reduce.1 = f32[40,8]{1,0} all-reduce(%p.4), channel_id=8, replica_groups=mesh['x'=4,'y'=2], \
device_ids=([2,4]T(1,0)) {'x'}, use_global_device_ids=true, to_apply=%add
  ROOT %slice = f32[10,8]{1,0} dynamic-slice(%reduce.1, %zero, %zero), dynamic_slice_sizes={10,8}
}

%body (p.5: (s32[], f32[40,8])) -> (s32[], f32[40,8]) {
  %p.5 = (s32[], f32[40,8]{1,0}) parameter(0)
  %count.1 = s32[] get-tuple-element(%p.5), index=0
  %all = f32[40,8]{1,0} get-tuple-element(%p.5), index=1
  %part = f32[10,8]{1,0} fusion(%all), kind=kCustom, calls=%all-reduce-scatter.1
  %started = (f32[10,8]{1,0}, f32[40,8]{1,0}) fusion(%part), kind=kCustom, calls=%start
  %mine = f32[10,8]{1,0} get-tuple-element(%started), index=0
  %hidden = bf16[64,12,512]{2,1,0:T(8,128)(2,1)S(1)} custom-call(), custom_call_target="x"
  %done = (bf16[64,12,12]{1,2,0}, f32[40,8]{1,0}) fusion(%mine, %hidden), kind=kCustom, \
calls=%middle
  %whole = f32[40,8]{1,0} get-tuple-element(%done), index=1
  %one = s32[] constant(1)
  %grown = s32[] add(%count.1, %one)
  ROOT %next = (s32[], f32[40,8]{1,0}) tuple(%grown, %whole)
}

ENTRY %main (x: (s32[], f32[40,8])) -> (s32[], f32[40,8]) {
  %x = (s32[], f32[40,8]{1,0}) parameter(0)
  ROOT %loop = (s32[], f32[40,8]{1,0}) while(%x), condition=%condition, body=%body
}
"""


def test_an_asynchronous_collective_counts_once_a_trip():
    program = costs.read(LOOP, MESH)
    assert program.unknown_loops == 0
    assert [(c.kind, c.axes, c.bytes, c.times) for c in program.collectives] == [
        ('reduce-scatter', ('fsdp',), 40 * 8 * 4 * 3 / 4, 5),
        ('all-gather', ('fsdp',), 3 * 10 * 8 * 4, 5),
    ]
    assert program.collective_bytes == 5 * (960 + 960)


def test_a_batched_product_in_a_tpus_form_costs_what_the_product_does():
    assert costs.read(LOOP, MESH).flops == 5 * 2 * 64 * 12 * 12 * 512


def test_a_loop_in_larger_steps_runs_less_often():
    """TPUs turn a product of gathered weights into a loop that counts by 2."""
    program = costs.read(LOOP.replace('%one = s32[] constant(1)', '%one = s32[] constant(2)'), MESH)
    assert {c.times for c in program.collectives} == {3}  # 0, 2, 4


def test_a_loop_of_unknown_length_is_reported():
    program = costs.read(LOOP.replace('direction=LT', 'direction=GT'), MESH)
    assert (program.unknown_loops, program.collectives[0].times) == (1, 1)


TRAFFIC = """
%update (p.1: f32[5,100], p.2: f32[100], p.3: s32[]) -> f32[5,100] {
  %p.1 = f32[5,100]{1,0} parameter(0)
  %p.2 = f32[100]{0} parameter(1)
  %p.3 = s32[] parameter(2)
  %zero = s32[] constant(0)
  %row = f32[1,100]{1,0} bitcast(%p.2)
  ROOT %in_place = f32[5,100]{1,0} dynamic-update-slice(%p.1, %row, %p.3, %zero)
}

%take (p.4: f32[5,100], p.5: s32[]) -> f32[100] {
  %p.4 = f32[5,100]{1,0} parameter(0)
  %p.5 = s32[] parameter(1)
  %zero.1 = s32[] constant(0)
  %one = f32[1,100]{1,0} dynamic-slice(%p.4, %p.5, %zero.1), dynamic_slice_sizes={1,100}
  %flat = f32[100]{0} bitcast(%one)
  %twice = f32[100]{0} add(%flat, %flat)
  ROOT %next = f32[100]{0} multiply(%twice, %flat)
}

ENTRY %main (x: f32[5,100], i: s32[], y: f32[100]) -> f32[5,100] {
  %x = f32[5,100]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %y = f32[100]{0} parameter(2)
  %fused = f32[100]{0:T(128)S(1)} fusion(%x, %i), kind=kLoop, calls=%take
  %half = (f32[100]{0}, f32[50]{0:T(128)S(1)}, s32[]{:S(2)}) slice-start(%y), slice={[0:50]}
  %fetched = f32[50]{0:T(128)S(1)} slice-done(%half)
  %mixed = f32[100]{0} add(%fused, %y)
  ROOT %out = f32[5,100]{1,0} fusion(%x, %mixed, %i), kind=kLoop, calls=%update
}
"""


def test_traffic_reads_slices_writes_updates_and_skips_memory_on_the_chip():
    row, index = 100 * 4, 4
    took = row + index  # one row of x; the result stays on the chip
    half = 50 * 4  # fetched to the chip
    mixed = row + row  # y is read, the sum is written
    updated = row + index + row  # the sum is read, one row of x is written
    assert costs.read(TRAFFIC, {'data': 1}).hbm_bytes == took + half + mixed + updated


@pytest.mark.parametrize(
    ('written', 'axes', 'n'),
    [
        ('{{0,1,2,3},{4,5,6,7}}', ('fsdp',), 4),
        ('{{0,4},{1,5},{2,6},{3,7}}', ('data',), 2),
        ('{}', ('data', 'fsdp'), 8),
        ('[2,4]<=[8]', ('fsdp',), 4),
        ('[4,2]<=[2,4]T(1,0)', ('data',), 2),
        ("mesh['a'=2,'b'=4] {'b'}", ('fsdp',), 4),
        ("mesh['a'=2,'b'=4] {'a'}", ('data',), 2),
        ("mesh['a'=2,'b'=4] {'a','b'}", ('data', 'fsdp'), 8),
        ("mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}", ('data',), 2),
        ("mesh['a'=8] {'a':(2)4}", ('fsdp',), 4),
        ("mesh['a'=8] {'a':(1)2}", ('data',), 2),
    ],
)
def test_groups_in_every_form_give_axes_and_size(written, axes, n):
    text = f"""
ENTRY %main (x: f32[8,25]) -> f32[8,25] {{
  %x = f32[8,25]{{1,0}} parameter(0)
  ROOT %sum = f32[8,25]{{1,0}} all-reduce(%x), channel_id=1, replica_groups={written}, \
use_global_device_ids=true, to_apply=%add
}}
"""
    (collective,) = costs.read(text, MESH).collectives
    assert collective.axes == axes
    assert collective.bytes == pytest.approx(2 * 8 * 25 * 4 * (n - 1) / n)


def test_received_bytes_are_those_of_a_ring():
    """A ring simulated: each of n devices hands pieces on until all hold what they should."""
    n, piece = 4, 30
    have = [{i} for i in range(n)]
    received = 0
    while any(len(pieces) < n for pieces in have):
        handed = [sorted(have[i - 1] - have[i])[:1] for i in range(n)]
        received += len(handed[0]) * piece
        have = [pieces | set(new) for pieces, new in zip(have, handed)]
    assert costs.COLLECTIVES['all-gather'](piece, n) == received
    assert costs.COLLECTIVES['reduce-scatter'](n * piece, n) == received
    assert costs.COLLECTIVES['all-reduce'](n * piece, n) == 2 * received
    assert np.isclose(costs.COLLECTIVES['all-to-all'](n * piece, n), (n - 1) * piece)


def test_traffic_by_part_of_the_model():
    """Each sum reads 400 bytes twice and writes 400."""
    line = '  %{0} = f32[100]{{0}} add(%{1}, %{1}), metadata={{op_name="{2}"}}'
    names = {
        'a': 'jit(step)/jvp(SemMIM.decode)/decoder/add',
        'b': 'jit(step)/transpose(jvp(SemMIM.decode))/decoder/add',
        'c': 'jit(step)/add',
        'd': 'jit(step)/jvp(fusion.project_context)/blocks/add',
        'e': 'jit(step)/transpose(jvp(jit(log_softmax)))/add',
        'f': 'jit(step)/transpose(jvp(fusion))/blocks/while/body/add',
        'g': 'jit(step)/jvp()/add',
    }
    lines = [line.format(name, 'x', scope) for name, scope in names.items()]
    text = '\n'.join(
        ['ENTRY %main (x: f32[100]) -> f32[100] {', '  %x = f32[100]{0} parameter(0)', *lines, '}']
    )
    program = costs.read(text, {'data': 1})
    assert program.hbm_bytes_by_scope() == {
        'decode': 1200,
        'decode (gradient)': 1200,
        'fusion.project_context': 1200,
        'fusion (gradient)': 1200,
        '': 3 * 1200,
    }


KERNELS = """HloModule jit_step, entry_computation_layout={()->()}

ENTRY %main (q: bf16[4,258,12,64], r: bf16[4,257,768]) -> bf16[4,258,12,64] {
  %q = bf16[4,258,12,64]{3,2,1,0} parameter(0)
  %r = bf16[4,257,768]{2,1,0} parameter(1)
  %lengths = s32[4]{0} constant({257, 257, 257, 257})
  %forward = (bf16[4,12,258,64]{3,1,2,0}, f32[4,12,258]{2,1,0}, u8[0]{0}) \
custom-call(%q, %q, %q, %lengths, %lengths), custom_call_target="__cudnn$fmhaSoftmax", \
backend_config={"cudnn_fmha_backend_config":{"fmha_scale":0.125,"intermediate_tensor_shape":\
{"element_type":"BF16","dimensions":["4","12","258","258"],"tuple_shapes":[]}}}
  %backward = (bf16[4,12,258,64]{3,1,2,0}, u8[0]{0}) custom-call(%q, %q, %q), \
custom_call_target="__cudnn$fmhaSoftmaxBackward", \
backend_config={"cudnn_fmha_backend_config":{"intermediate_tensor_shape": \
{"element_type": "BF16", "dimensions": ["4", "12", "258", "258"]}}}
  %tpu = bf16[4,257,768]{2,1,0} custom-call(%r, %r, %r), custom_call_target="tpu_custom_call", \
backend_config={"custom_call_config":{"body":"TU","cost_estimate":{"flops":"1500",\
"transcendentals":"7"}}}
  %untold = bf16[4,257,768]{2,1,0} custom-call(%r), custom_call_target="tpu_custom_call", \
backend_config={"custom_call_config":{"body":"TU"}}
  ROOT %out = bf16[4,258,12,64]{3,2,1,0} copy(%q)
}
"""


def test_attention_in_a_kernel_counts_its_products():
    program = costs.read(KERNELS, {'data': 1})
    pairs = 4 * 12 * 258 * 258
    expected = [2 * 2 * 64 * pairs, 5 * 2 * 64 * pairs, 1500.0]
    assert [work.flops for work in program.work if work.flops] == expected
    read_and_written = 4 * 4 * 258 * 768 * 2 + 2 * 4 * 4 + 4 * 12 * 258 * 4
    assert program.work[0].bytes == read_and_written
