# SPDX-License-Identifier: BSD-2-Clause
"""How a system call becomes a method: once described, it can be made and waited for, or only started."""

from __future__ import annotations

import functools
import inspect
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Concatenate, Generic, ParamSpec, TypeVar, overload

from harness.processes.abi_base import Abi
from harness.processes.connection import Call, Connection, Endpoint, Pending
from harness.processes.vocabulary import GuestError
from harness.processes.wire import Answer, Argument, Buffer, EncodedCall, Operation, decode_outputs, encode_call

P = ParamSpec("P")
T = TypeVar("T")


class Caller(ABC):
    """Something that makes system calls in one process."""

    def __init__(self, connection: Connection, abi: Abi, endpoint: Endpoint) -> None:
        self._connection = connection
        self._abi = abi
        self._endpoint = endpoint

    @abstractmethod
    def _perform(self, call: Call[T]) -> T | Pending[T]: ...

    def _describe(
        self,
        name: str,
        arguments: tuple[Argument, ...],
        text: str,
        convert: Callable[[Result], T],
        *,
        operation: Operation = Operation.SYSCALL,
        on_gone: Callable[[], T] | None = None,
        timeout: float | None = None,
    ) -> Call[T]:
        """Describe one system call by name.  Raises GuestError ENOSYS at once if the ABI has no such call."""
        number = self._abi.numbers.get(name, _DECLARED.get((self._abi.name, name)))
        if number is None:
            raise GuestError(text, "ENOSYS")
        encoded = encode_call(number, arguments)

        def decode(answer: Answer) -> T:
            if answer.error:
                raise GuestError(text, self._abi.errno_name(answer.error), answer.error)
            return convert(Result(encoded, answer))

        return Call(text, operation, encoded.payload, decode, on_gone, timeout)

    def _call(self, name: str, *arguments: Argument, text: str | None = None) -> Call[int]:
        """Describe a call that returns a number."""
        return self._describe(name, arguments, text or arguments_text(name, *arguments), lambda result: result.value)

    def _void(self, name: str, *arguments: Argument, text: str | None = None) -> Call[None]:
        """Describe a call that returns nothing."""
        return self._describe(name, arguments, text or arguments_text(name, *arguments), lambda _: None)


class Result:
    """A successful answer together with the memory it brought back."""

    def __init__(self, encoded: EncodedCall, answer: Answer, skip: int = 0) -> None:
        self._encoded = encoded
        self._outputs: dict[int, bytes] | None = None
        self._skip = skip
        self.answer = answer

    def __repr__(self) -> str:
        return str(self.value)

    @property
    def value(self) -> int:
        """What the call returned, as the C int most calls return."""
        return self.answer.value32

    @property
    def wide(self) -> int:
        """What the call returned, all 64 bits of it."""
        return self.answer.value

    def memory(self, buffer: Buffer) -> bytes:
        """Return the content of a wanted buffer after the call."""
        if self._outputs is None:
            self._outputs = decode_outputs(self._encoded, self.answer.data[self._skip :])
        return self._outputs[id(buffer)]


class Now(Caller):
    """Makes calls and waits for them."""

    def _perform(self, call: Call[T]) -> T:
        return self._connection.run(self._endpoint, call)


class Started(Caller):
    """Starts calls; each returns a Pending."""

    def _perform(self, call: Call[T]) -> Pending[T]:
        return self._connection.submit(self._endpoint, call)


class SystemCall(Generic[P, T]):
    """A method that describes a call; what calling it does depends on the object it is called on."""

    def __init__(self, describe: Callable[Concatenate[Caller, P], Call[T]]) -> None:
        self._describe = describe
        self.__doc__ = describe.__doc__
        self.__name__ = describe.__name__
        self.__qualname__ = describe.__qualname__
        self.__module__ = describe.__module__

    @functools.cached_property
    def __signature__(self) -> inspect.Signature:
        """What help() and editors show: the call's arguments, and what making it returns."""
        described = inspect.signature(self._describe)
        returns = str(described.return_annotation)
        made = returns.removeprefix("Call[").removesuffix("]") if returns.startswith("Call[") else returns
        return described.replace(return_annotation=made)

    @functools.cached_property
    def _bound_signature(self) -> inspect.Signature:
        own, *arguments = self.__signature__.parameters.values()
        del own
        return self.__signature__.replace(parameters=arguments)

    def __call__(self, instance: Caller, *args: P.args, **kwargs: P.kwargs) -> object:
        """Make the call, as any function that is found in a class would."""
        return instance._perform(self._describe(instance, *args, **kwargs))

    @overload
    def __get__(self, instance: Now, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, instance: Started, owner: type) -> Callable[P, Pending[T]]: ...
    @overload
    def __get__(self, instance: None, owner: type) -> SystemCall[P, T]: ...
    def __get__(self, instance: Caller | None, owner: type) -> object:
        if instance is None:
            return self
        describe = self._describe

        @functools.wraps(describe)
        def bound(*args: P.args, **kwargs: P.kwargs) -> object:
            return instance._perform(describe(instance, *args, **kwargs))

        bound.__signature__ = self._bound_signature  # type: ignore[attr-defined]
        return bound


C = TypeVar("C", bound=Caller)
# Numbers that were declared with the method, by ABI and name; the ABIs' own tables have those of before.
_DECLARED: dict[tuple[str, str], int] = {}


@overload
def system_call(describe: Callable[Concatenate[C, P], Call[T]]) -> SystemCall[P, T]: ...
@overload
def system_call(
    *, dragonfly: int | None = None, linux: int | None = None
) -> Callable[[Callable[Concatenate[C, P], Call[T]]], SystemCall[P, T]]: ...
def system_call(
    describe: Callable[Concatenate[C, P], Call[T]] | None = None,
    *,
    dragonfly: int | None = None,
    linux: int | None = None,
) -> SystemCall[P, T] | Callable[[Callable[Concatenate[C, P], Call[T]]], SystemCall[P, T]]:
    """Turn a method that describes a call into one that makes it.

    A call that the ABIs' tables do not have is added with its numbers, in this one place:
    `@system_call(dragonfly=547, linux=436)`.  An ABI without a number fails it with ENOSYS.
    """
    if describe is not None:
        return SystemCall(describe)  # type: ignore[arg-type]  # it is only ever given the class it was defined in

    def numbered(describe: Callable[Concatenate[C, P], Call[T]]) -> SystemCall[P, T]:
        for abi, number in (("dragonfly", dragonfly), ("linux", linux)):
            if number is not None:
                _DECLARED[abi, describe.__name__] = number
        return SystemCall(describe)  # type: ignore[arg-type]

    return numbered


def arguments_text(name: str, *arguments: object) -> str:
    """Return a call as it would be written: `setpgid(1234, 0)`."""
    return f"{name}({', '.join(map(str, arguments))})"


def path_buffer(path: str | bytes) -> Buffer:
    """Return a path, or another text, as a C string in memory."""
    return Buffer((path if isinstance(path, bytes) else path.encode(errors="surrogateescape")) + b"\0")


def text_of(data: bytes) -> str:
    """Return a C string as text."""
    return data.split(b"\0", 1)[0].decode(errors="surrogateescape")


#: struct timespec
TIMESPEC = struct.Struct("<qq")


def timespec(seconds: float) -> bytes:
    """Return SECONDS as a struct timespec."""
    nanoseconds = round(seconds * 1e9)
    return TIMESPEC.pack(nanoseconds // 10**9, nanoseconds % 10**9)
