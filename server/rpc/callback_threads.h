// Keeps gRPC's callback threads alive for the life of the process.
#pragma once

namespace tessera::rpc {

/// gRPC 1.51 ends these threads when the last channel dies, and joins them from whoever dropped it.
/// A call's context holds its channel and dies on such a thread, which would then join itself. One
/// channel that is never dropped rules that out. Called before the first channel is made.
void keep_callback_threads();

}  // namespace tessera::rpc
