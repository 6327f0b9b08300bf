#include "engine/transport/progress_thread.h"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <utility>

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "engine/base/check.h"

namespace tessera {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

/// Bounds of the sleep while operations are under way: a quarter of the time since anything
/// happened.
constexpr microseconds kMinActiveSleep{50};
constexpr milliseconds kMaxActiveSleep{10};
/// Also bounds how late a lost event is noticed.
constexpr milliseconds kMaxSleep{100};

}  // namespace

ProgressThread::ProgressThread(std::string name, Work& work, microseconds spin)
    : work_(work),
      name_(std::move(name)),
      spin_(spin),
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
    if (now - last_event < spin_) {
      sched_yield();
      continue;
    }
    if (work_.arm()) {
      sleep(now, last_event);
    }
  }
  run_commands();
  work_.finish();
}

void ProgressThread::sleep(Time now, Time last_event) {
  Deadline::Clock::duration longest = kMaxSleep;
  if (work_.is_active()) {
    longest = std::clamp<Deadline::Clock::duration>(
        (now - last_event) / 4, kMinActiveSleep, kMaxActiveSleep);
  }
  const auto delay = std::chrono::nanoseconds(
      std::clamp<Deadline::Clock::duration>(work_.next_timer() - now, microseconds(0), longest));
  timespec timeout{};
  timeout.tv_nsec = static_cast<long>(delay.count());
  pollfd events{epoll_, POLLIN, 0};  // ppoll(): epoll_wait() knows no microseconds
  if (ppoll(&events, 1, &timeout, nullptr) > 0) {
    uint64_t count = 0;
    static_cast<void>(!read(wake_event_, &count, sizeof(count)));
  }
}

}  // namespace tessera
