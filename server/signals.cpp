#include "server/signals.h"

#include <atomic>
#include <csignal>
#include <ctime>
#include <optional>

#include <pthread.h>
#include <unistd.h>

namespace tessera {
namespace {

sigset_t stop_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

sigset_t all_signals() {
  sigset_t set = stop_signals();
  sigaddset(&set, SIGHUP);
  return set;
}

// The thread that waits for signals while the main thread loads. Plain handles: nothing to destroy
// when a failed load leaves main().
std::optional<pthread_t> loading_watch;
std::atomic<bool> is_loading{false};

void* watch_loading(void* /*unused*/) {
  const sigset_t set = all_signals();
  while (is_loading) {
    int number = 0;
    if (sigwait(&set, &number) == 0 && number != SIGHUP) {
      stop_at_next_signal();
      kill(getpid(), number);
    }
  }
  return nullptr;
}

void end_loading_watch() {
  if (loading_watch.has_value()) {
    is_loading = false;
    pthread_kill(*loading_watch, SIGHUP);
    pthread_join(*loading_watch, nullptr);
    loading_watch.reset();
  }
}

}  // namespace

void block_signals() {
  std::signal(SIGPIPE, SIG_IGN);
  const sigset_t set = all_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

void stop_at_signals_while_loading() {
  pthread_t thread{};
  is_loading = true;
  if (pthread_create(&thread, nullptr, watch_loading, nullptr) == 0) {
    loading_watch = thread;
  }
}

Signal wait_for_signal_blocking() {
  end_loading_watch();
  const sigset_t set = all_signals();
  int number = 0;
  while (sigwait(&set, &number) != 0) {
  }
  return number == SIGHUP ? Signal::kReload : Signal::kStop;
}

bool wait_for_stop_blocking(std::chrono::milliseconds patience) {
  const sigset_t set = stop_signals();
  const timespec time{patience.count() / 1000, (patience.count() % 1000) * 1'000'000};
  return sigtimedwait(&set, nullptr, &time) > 0;
}

void stop_at_next_signal() {
  const sigset_t set = stop_signals();
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

}  // namespace tessera
