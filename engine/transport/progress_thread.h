// The one thread of a sender or receiver: turns over the transport, sleeps while nothing happens
// and wakes for its events and for commands of other threads.
#pragma once

#include <chrono>
#include <functional>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "engine/base/deadline.h"

namespace tessera {

class ProgressThread final {
 public:
  using Time = Deadline::Clock::time_point;
  /// Called on the thread.
  class Work {
   public:
    Work() = default;
    virtual ~Work() = default;
    Work(const Work&) = delete;
    Work& operator=(const Work&) = delete;
    /// One turn; true when anything happened.
    virtual bool turn(Time now) = 0;
    /// Operations are under way that may go on without an event (a full queue in shared memory
    /// that drains): sleep briefly.
    [[nodiscard]] virtual bool is_active() const = 0;
    /// Asks for events; false when there is work already.
    [[nodiscard]] virtual bool arm() = 0;
    /// When turn() has something to do even without an event.
    [[nodiscard]] virtual Time next_timer() const = 0;
    /// Last call; the thread ends after it.
    virtual void finish() = 0;
  };

  /// Longer than the gap between two batches of a running transfer, far below a scheduler's slice.
  static constexpr std::chrono::microseconds kHostSpin{50};
  /// The same where batches are large and lie in a GPU's memory, whose events are slow to wake for.
  static constexpr std::chrono::microseconds kDeviceSpin{500};

  /// Starts the thread; `work` outlives it. It looks on for `spin` after something happened.
  ProgressThread(std::string name, Work& work, std::chrono::microseconds spin = kHostSpin);
  /// Runs the commands that were posted, then Work::finish(), then joins.
  ~ProgressThread();
  ProgressThread(const ProgressThread&) = delete;
  ProgressThread& operator=(const ProgressThread&) = delete;

  /// Runs `command` on the thread, in order. Any thread; does not block.
  void post(std::function<void()> command);
  /// Events of `fd` end the sleep. On the thread.
  void watch(int fd);
  void unwatch(int fd);

 private:
  void run(const std::stop_token& stop);
  bool run_commands();
  void wake() const;
  void sleep(Time now, Time last_event);

  Work& work_;
  const std::string name_;
  const std::chrono::microseconds spin_;
  int epoll_;
  int wake_event_;
  std::mutex mutex_;  // guards commands_
  std::vector<std::function<void()>> commands_;
  std::jthread thread_;  // last: the rest is there when it starts
};

}  // namespace tessera
