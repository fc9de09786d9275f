"""Deflate: permessage-deflate (RFC 7692) as websockets has it, and final blocks beside.

A compressor may end a message with a final block and begin anew (section 7.2.3.4). zlib takes a
final block for the end of all: without this every later message would come out empty, and nobody
be told.
"""

import zlib
from collections.abc import Sequence

from websockets.exceptions import ProtocolError
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
)
from websockets.frames import Frame
from websockets.typing import ExtensionParameter

EMPTY_BLOCK = b"\x00\x00\xff\xff"  # what a message is compressed without, and websockets adds


class _Deflate(PerMessageDeflate):
    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        decoded = super().decode(frame, max_size=max_size)
        if not self.remote_no_context_takeover and self.decoder.eof:
            if self.decoder.unused_data not in (b"", EMPTY_BLOCK):
                raise ProtocolError("compressed data goes on after its final block")
            self.decoder = zlib.decompressobj(wbits=-self.remote_max_window_bits)
        return decoded


class DeflateFactory(ClientPerMessageDeflateFactory):
    """Offers permessage-deflate."""

    def process_response_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> PerMessageDeflate:
        """Return what was agreed (websockets.extensions.ClientExtensionFactory)."""
        agreed = super().process_response_params(params, accepted_extensions)
        return _Deflate(
            agreed.remote_no_context_takeover,
            agreed.local_no_context_takeover,
            agreed.remote_max_window_bits,
            agreed.local_max_window_bits,
            agreed.compress_settings,
        )
