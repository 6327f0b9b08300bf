#include "engine/transport/progress_thread.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "engine/base/check.h"

namespace tessera {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

/// Longer than the gap between two batches of a running transfer, far below a scheduler's slice.
constexpr microseconds kSpin{50};
/// Also bounds how late a lost event is noticed.
constexpr milliseconds kMaxSleep{100};

}  // namespace

ProgressThread::ProgressThread(std::string name, Work& work)
    : work_(work),
      name_(std::move(name)),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      wake_event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  TESSERA_CHECK(epoll_ >= 0 && wake_event_ >= 0, "no file descriptors for a transport thread");
  watch(wake_event_);
  thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

ProgressThread::~ProgressThread() {
  thread_.request_stop();
  wake();
  thread_.join();
  close(wake_event_);
  close(epoll_);
}

void ProgressThread::post(std::function<void()> command) {
  {
    const std::lock_guard lock(mutex_);
    commands_.push_back(std::move(command));
  }
  wake();
}

void ProgressThread::wake() const {
  const uint64_t one = 1;
  // It fails only when the counter is full, and then the thread wakes anyway.
  static_cast<void>(!write(wake_event_, &one, sizeof(one)));
}

void ProgressThread::watch(int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  TESSERA_CHECK(epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) == 0, "epoll refuses a descriptor");
}

void ProgressThread::unwatch(int fd) {
  epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);
}

bool ProgressThread::run_commands() {
  std::vector<std::function<void()>> commands;
  {
    const std::lock_guard lock(mutex_);
    commands.swap(commands_);
  }
  for (const std::function<void()>& command : commands) {
    command();
  }
  return !commands.empty();
}

void ProgressThread::run(const std::stop_token& stop) {
  pthread_setname_np(pthread_self(), name_.substr(0, 15).c_str());
  Time last_event{};
  while (!stop.stop_requested()) {
    const bool had_commands = run_commands();
    const Time now = Deadline::Clock::now();
    if (work_.turn(now) || had_commands) {
      last_event = now;
      continue;
    }
    if (work_.is_active() && now - last_event < kSpin) {
      sched_yield();
      continue;
    }
    if (work_.arm()) {
      sleep_until(work_.next_timer());
    }
  }
  run_commands();
  work_.finish();
}

void ProgressThread::sleep_until(Time timer) const {
  const Deadline::Clock::duration delay = timer - Deadline::Clock::now();
  const auto rounded = std::chrono::ceil<milliseconds>(
      std::clamp<Deadline::Clock::duration>(delay, milliseconds(0), kMaxSleep));
  std::array<epoll_event, 8> events{};
  const int num_events = epoll_wait(
      epoll_, events.data(), static_cast<int>(events.size()), static_cast<int>(rounded.count()));
  for (int i = 0; i < num_events; ++i) {
    uint64_t count = 0;
    if (events[static_cast<size_t>(i)].data.fd == wake_event_) {
      static_cast<void>(!read(wake_event_, &count, sizeof(count)));
    }
  }
}

}  // namespace tessera
