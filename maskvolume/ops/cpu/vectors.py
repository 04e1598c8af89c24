"""Vectors of 16 numbers in Numba loops, for code that LLVM does not vectorize by itself.

``Floats``, ``Integers`` and ``Mask`` exist only inside compiled functions. Arithmetic and comparisons are elementwise,
and scalars are broadcast. LLVM splits vectors for machines with narrower registers.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 16
# Converting halves needs a CPU instruction; without it LLVM calls a library function that may not exist.
HALVES = "aarch64" in llvm.get_process_triple() or llvm.get_host_cpu_features().get("f16c", False)

_I32, _F32 = ir.IntType(32), ir.FloatType()
_FAST = ("contract", "reassoc", "arcp", "nsz", "afn")  # all flags except those that assume finite numbers


class Vector(types.Type):
    """The Numba type of a vector."""

    def __init__(self, name: str, element: ir.Type, scalar: types.Type) -> None:
        self.llvm, self.scalar = ir.VectorType(element, LANES), scalar
        super().__init__(name=name)


Floats = Vector("Floats", _F32, types.float32)
Integers = Vector("Integers", _I32, types.int32)
Mask = Vector("Mask", ir.IntType(1), types.boolean)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, kind.llvm)


def _splat(builder: ir.IRBuilder, value: ir.Value, kind: Vector) -> ir.Value:
    """Broadcast a scalar to all lanes."""
    nothing = ir.Constant(kind.llvm, ir.Undefined)
    first = builder.insert_element(nothing, value, _I32(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))


def _constant(kind: Vector, values: Any) -> ir.Constant:
    return ir.Constant(kind.llvm, list(values))


# --- arithmetic and comparisons -------------------------------------------------------------------

_Emit = Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value]


def _arithmetic(name: str) -> dict[Vector, _Emit]:
    floats = {"add": "fadd", "sub": "fsub", "mul": "fmul", "truediv": "fdiv"}[name]
    found: dict[Vector, _Emit] = {Floats: lambda b, x, y: getattr(b, floats)(x, y, flags=_FAST)}
    if name != "truediv":
        found[Integers] = lambda b, x, y: getattr(b, name)(x, y)
    return found


def _comparison(sign: str) -> dict[Vector, _Emit]:
    return {
        Floats: lambda b, x, y: b.fcmp_ordered(sign, x, y),
        Integers: lambda b, x, y: b.icmp_signed(sign, x, y),
    }


def _register(operation: Any, emitters: dict[Vector, _Emit], *, result: Vector | None = None) -> None:
    """Define an operator for two vectors, and for a vector and a scalar in either order."""

    @infer_global(operation)
    class _Typing(AbstractTemplate):
        def generic(self, args: tuple[types.Type, ...], kws: dict[str, Any]) -> Any:
            kinds = [arg for arg in args if isinstance(arg, Vector)]
            if len(args) != 2 or not kinds or kinds[0] not in emitters:
                return None
            if any(arg != kinds[0] and not isinstance(arg, types.Number) for arg in args):
                return None
            operands = [arg if isinstance(arg, Vector) else kinds[0].scalar for arg in args]
            return signature(result or kinds[0], *operands)

    def lower(kind: Vector, emit: _Emit, left: types.Type, right: types.Type) -> None:
        @lower_builtin(operation, left, right)
        def _(context: Any, builder: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
            pairs = zip(sig.args, args, strict=True)
            x, y = (value if isinstance(each, Vector) else _splat(builder, value, kind) for each, value in pairs)
            return emit(builder, x, y)

    for kind, emit in emitters.items():
        for left, right in ((kind, kind), (kind, kind.scalar), (kind.scalar, kind)):
            lower(kind, emit, left, right)


for _operation in (operator.add, operator.sub, operator.mul, operator.truediv):
    _register(_operation, _arithmetic(_operation.__name__))
for _operation, _sign in (
    (operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"), (operator.ge, ">="), (operator.eq, "=="),
):  # fmt: skip
    _register(_operation, _comparison(_sign), result=Mask)
_register(operator.and_, {Mask: lambda b, x, y: b.and_(x, y)})
_register(operator.xor, {Mask: lambda b, x, y: b.xor(x, y)})


def inside(function: Any) -> Any:
    """Decorate a function that exists only in compiled loops, which pass all arguments but the first."""
    return intrinsic(function)


# --- making, choosing, counting -------------------------------------------------------------------


@inside
def ramp(typing: Any, start: Any) -> Any:
    """``start + [0, 1, ... 15]``."""

    def emit(context: Any, builder: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
        kind = sig.return_type
        steps = _constant(kind, range(LANES))
        first = _splat(builder, args[0], kind)
        return builder.fadd(first, steps) if kind == Floats else builder.add(first, steps)

    kind = Floats if isinstance(start, types.Float) else Integers
    return kind(kind.scalar), emit


@inside
def splat(typing: Any, value: Any) -> Any:
    """A scalar in all 16 lanes."""

    def emit(context: Any, builder: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
        return _splat(builder, args[0], sig.return_type)

    kind = Floats if isinstance(value, types.Float) else Integers
    return kind(kind.scalar), emit


@inside
def truncate(typing: Any, x: Any) -> Any:
    """Floats truncated to integers; the values must fit into 32 bits."""

    def emit(context: Any, builder: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
        return builder.fptosi(args[0], Integers.llvm)

    return Integers(Floats), emit


@inside
def floats(typing: Any, x: Any) -> Any:
    """Integers as floats."""

    def emit(context: Any, builder: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
        return builder.sitofp(args[0], Floats.llvm)

    return Floats(Integers), emit


@inside
def select(typing: Any, mask: Any, yes: Any, no: Any) -> Any:
    """``yes`` where the mask is set, else ``no``."""

    def emit(context: Any, builder: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
        return builder.select(*args)

    return yes(Mask, yes, yes), emit


@inside
def absolute(typing: Any, x: Any) -> Any:
    """The absolute values of floats."""

    def emit(context: Any, builder: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
        whole = builder.bitcast(args[0], Integers.llvm)
        return builder.bitcast(builder.and_(whole, _constant(Integers, [0x7FFFFFFF] * LANES)), Floats.llvm)

    return Floats(Floats), emit


@inside
def lowest(typing: Any, x: Any, y: Any) -> Any:
    """The elementwise minimum of floats."""

    def emit(context: Any, builder: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
        return builder.select(builder.fcmp_ordered("<", *args), *args)

    return Floats(Floats, Floats), emit


@inside
def power_of_two(typing: Any, x: Any) -> Any:
    """2 to the power of integers from -126 to 127."""

    def emit(context: Any, builder: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
        exponent = builder.add(args[0], _constant(Integers, [127] * LANES))
        return builder.bitcast(builder.shl(exponent, _constant(Integers, [23] * LANES)), Floats.llvm)

    return Floats(Integers), emit


@inside
def lane(typing: Any, x: Any, number: Any) -> Any:
    """The value of one lane."""

    def emit(context: Any, builder: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
        return builder.extract_element(*args)

    return x.scalar(x, types.int32), emit


@inside
def bits(typing: Any, mask: Any) -> Any:
    """A mask as an integer: lane i is bit i."""

    def emit(context: Any, builder: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
        return builder.zext(builder.bitcast(args[0], ir.IntType(LANES)), _I32)

    return types.int32(Mask), emit


@inside
def lowest_bit(typing: Any, value: Any) -> Any:
    """The index of the lowest set bit; the value must not be 0."""

    def emit(context: Any, builder: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int32(types.int32), emit


# --- memory ---------------------------------------------------------------------------------------


def _pointer(
    context: Any, builder: ir.IRBuilder, kind: Any, array: ir.Value, at: ir.Value, lanes: ir.VectorType
) -> ir.Value:
    """A vector pointer to an element of a contiguous array."""
    start = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(start, [at]), lanes.as_pointer())


def _stored_as(kind: Any) -> ir.VectorType:
    """The memory type of 16 array elements; ``uint16`` holds halves."""
    element = {types.float32: _F32, types.uint16: ir.HalfType(), types.uint8: ir.IntType(8)}[kind.dtype]
    return ir.VectorType(element, LANES)


def _masked(builder: ir.IRBuilder, operation: str, lanes: ir.VectorType, result: ir.Type, *kinds: ir.Type) -> Any:
    """The LLVM intrinsic for a masked load or store of 16 elements."""
    suffix = {_F32: "f32", ir.HalfType(): "f16", ir.IntType(8): "i8"}[lanes.element]
    name = f"llvm.masked.{operation}.v{LANES}{suffix}.p0"
    return builder.module.declare_intrinsic(name, fnty=ir.FunctionType(result, kinds))


def _widened(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """Elements converted to floats; bytes store value * 255."""
    if value.type.element == ir.HalfType():
        return builder.fpext(value, Floats.llvm)
    if value.type.element == ir.IntType(8):
        return builder.fmul(builder.uitofp(value, Floats.llvm), _constant(Floats, [1 / 255] * LANES))
    return value


@inside
def load(typing: Any, array: Any, at: Any) -> Any:
    """16 elements from an index of a contiguous array of floats, halves (``uint16``) or bytes, as floats."""

    def emit(context: Any, builder: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1], _stored_as(sig.args[0]))
        return _widened(builder, builder.load(pointer, align=array.dtype.bitwidth // 8))

    return Floats(array, types.uintp), emit


@inside
def load_where(typing: Any, array: Any, at: Any, mask: Any) -> Any:
    """Like ``load``, but lanes outside the mask are 0 and are not read."""

    def emit(context: Any, builder: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
        kind = _stored_as(sig.args[0])
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1], kind)
        nothing = ir.Constant(kind, None)
        function = _masked(builder, "load", kind, kind, pointer.type, _I32, Mask.llvm, kind)
        return _widened(builder, builder.call(function, [pointer, _I32(array.dtype.bitwidth // 8), args[2], nothing]))

    return Floats(array, types.uintp, Mask), emit


@inside
def store_where(typing: Any, array: Any, at: Any, values: Any, mask: Any) -> Any:
    """Store the lanes that the mask selects; ``uint16`` arrays receive halves."""

    def emit(context: Any, builder: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
        kind = _stored_as(sig.args[0])
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1], kind)
        value = builder.fptrunc(args[2], kind) if kind.element == ir.HalfType() else args[2]
        function = _masked(builder, "store", kind, ir.VoidType(), kind, pointer.type, _I32, Mask.llvm)
        builder.call(function, [value, pointer, _I32(array.dtype.bitwidth // 8), args[3]])
        return context.get_dummy_value()

    return types.void(array, types.uintp, Floats, Mask), emit


@inside
def prefetch(typing: Any, array: Any, at: Any) -> Any:
    """Prefetch the cache line of an element; any index is allowed, since nothing is read."""

    def emit(context: Any, builder: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
        start = context.make_array(sig.args[0])(context, builder, args[0]).data
        pointer = builder.bitcast(builder.gep(start, [args[1]]), ir.IntType(8).as_pointer())
        shape = ir.FunctionType(ir.VoidType(), [pointer.type, _I32, _I32, _I32])
        function = builder.module.declare_intrinsic("llvm.prefetch.p0", fnty=shape)
        builder.call(function, [pointer, _I32(0), _I32(3), _I32(1)])  # for reading, into all cache levels, data
        return context.get_dummy_value()

    return types.void(array, types.uintp), emit


# --- scalars ------------------------------------------------------------------------------------


@inside
def put(typing: Any, array: Any, at: Any, value: Any) -> Any:
    """Write one element of a contiguous array: a float, or a bfloat16 as bits in ``uint16``."""

    def emit(context: Any, builder: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
        start = context.make_array(sig.args[0])(context, builder, args[0]).data
        value = args[2]
        if array.dtype == types.uint16:  # rounded to the nearest, ties to even
            whole = builder.bitcast(value, _I32)
            odd = builder.and_(builder.lshr(whole, _I32(16)), _I32(1))
            rounded = builder.add(whole, builder.add(odd, _I32(0x7FFF)))
            value = builder.trunc(builder.lshr(rounded, _I32(16)), ir.IntType(16))
        builder.store(value, builder.gep(start, [args[1]]))
        return context.get_dummy_value()

    return types.void(array, types.uintp, types.float32), emit


@inside
def get(typing: Any, array: Any, at: Any) -> Any:
    """Read one element of a contiguous array: a float, or a bfloat16 from bits in ``uint16``."""

    def emit(context: Any, builder: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
        start = context.make_array(sig.args[0])(context, builder, args[0]).data
        value = builder.load(builder.gep(start, [args[1]]))
        if array.dtype == types.uint16:
            value = builder.bitcast(builder.shl(builder.zext(value, _I32), _I32(16)), _F32)
        return value

    return types.float32(array, types.uintp), emit
