// The process's signals, taken by the main thread in order. Call block_signals() before the first
// thread starts, so that every thread inherits the mask.
#pragma once

#include <chrono>

namespace tessera {

enum class Signal { kStop, kReload };

/// Blocks SIGTERM, SIGINT and SIGHUP for wait_for_signal_blocking(), and ignores SIGPIPE.
void block_signals();

/// Until wait_for_signal_blocking() is called, SIGTERM and SIGINT end the process as they do by
/// default, whatever it is busy with: loading a large model takes minutes. Main thread only, once.
void stop_at_signals_while_loading();

/// Waits for SIGTERM or SIGINT (kStop) or SIGHUP (kReload). Main thread only.
[[nodiscard]] Signal wait_for_signal_blocking();

/// Waits for SIGTERM or SIGINT, at most so long; false when none came. Any one thread.
[[nodiscard]] bool wait_for_stop_blocking(std::chrono::milliseconds patience);

/// From now on SIGTERM and SIGINT end the process at once, as they do by default. Any thread.
void stop_at_next_signal();

}  // namespace tessera
