// A second process of the test: this binary started again in a role, spoken to in lines.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include "engine/transport/landing.h"

namespace tessera {

/// The lines between parent and child. Either end; one reader, any writers.
class LineChannel final {
 public:
  explicit LineChannel(int fd) : fd_(fd) {}
  ~LineChannel();
  LineChannel(const LineChannel&) = delete;
  LineChannel& operator=(const LineChannel&) = delete;

  void write(std::string line);
  /// Empty at the end of the stream or after `timeout`.
  [[nodiscard]] std::string read(std::chrono::milliseconds timeout);

 private:
  int fd_;
  std::string buffer_;
};

class ChildProcess final {
 public:
  /// `arguments` follow the program's name; `settings` are "NAME=value" of its environment.
  ChildProcess(const std::vector<std::string>& arguments, const std::vector<std::string>& settings);
  /// Kills what still runs.
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  void send(int signal) const;
  /// Kills and waits for the end.
  void kill();
  /// Asks it to end by itself; its exit status, -1 when it had to be killed.
  [[nodiscard]] int leave();
  [[nodiscard]] LineChannel& lines() noexcept { return lines_; }
  /// The next line, which must come within 20 s and be `expected`.
  void expect_line(std::string_view expected);
  /// Skips lines until `expected` comes; false after 20 s.
  [[nodiscard]] bool await_line(std::string_view expected);

 private:
  static int start(const std::vector<std::string>& arguments,
                   const std::vector<std::string>& settings,
                   pid_t& pid);

  pid_t pid_ = -1;
  LineChannel lines_;
};

[[nodiscard]] std::string to_text(const LandingRegion& region);
[[nodiscard]] LandingRegion region_from(const std::string& text);

/// The bytes of block `index` in a run with `seed`.
void fill_image(std::span<char> image, uint64_t seed, int32_t index);
[[nodiscard]] bool holds_image(std::span<const char> image, uint64_t seed, int32_t index);

/// Runs "sender", "receiver", "put" or "target" in the child. `fd` is its end of the channel.
int run_child(int fd, const std::string& role, const std::vector<std::string>& arguments);

}  // namespace tessera
