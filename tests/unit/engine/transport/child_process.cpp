#include "tests/unit/engine/transport/child_process.h"

#include <array>
#include <cstring>
#include <sstream>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/check.h"

namespace tessera {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kPatience{20000};

std::string to_hex(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) {
    std::array<char, 3> digits{};
    std::snprintf(digits.data(), digits.size(), "%02x", static_cast<unsigned char>(byte));
    text += digits.data();
  }
  return text;
}

std::string from_hex(std::string_view text) {
  std::string bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(std::string(text.substr(i, 2)), nullptr, 16));
  }
  return bytes;
}

uint64_t next_random(uint64_t& state) {
  state ^= state << 13U;
  state ^= state >> 7U;
  state ^= state << 17U;
  return state;
}

uint64_t first_state(uint64_t seed, int32_t index) {
  return (seed * 0x9e3779b97f4a7c15ULL) ^ (static_cast<uint64_t>(index + 1) << 20U) ^ 0x5bd1e995U;
}

}  // namespace

LineChannel::~LineChannel() {
  close(fd_);
}

void LineChannel::write(std::string line) {
  line += '\n';
  // A peer that was killed is the other side's finding.
  static_cast<void>(!::send(fd_, line.data(), line.size(), MSG_NOSIGNAL));
}

std::string LineChannel::read(milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (true) {
    const size_t end = buffer_.find('\n');
    if (end != std::string::npos) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return line;
    }
    const auto left = std::chrono::ceil<milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd events{fd_, POLLIN, 0};
    if (left.count() <= 0 || poll(&events, 1, static_cast<int>(left.count())) <= 0) {
      return {};
    }
    std::array<char, 4096> chunk{};
    const ssize_t count = ::read(fd_, chunk.data(), chunk.size());
    if (count <= 0) {
      return {};
    }
    buffer_.append(chunk.data(), static_cast<size_t>(count));
  }
}

ChildProcess::ChildProcess(const std::vector<std::string>& arguments,
                           const std::vector<std::string>& settings)
    : lines_(start(arguments, settings, pid_)) {}

int ChildProcess::start(const std::vector<std::string>& arguments,
                        const std::vector<std::string>& settings,
                        pid_t& pid) {
  std::array<int, 2> ends{};
  TESSERA_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0,
                "no socket pair");
  // Room for some hundred lines that nobody reads yet: a transport's thread must not wait for it.
  constexpr int kRoom = 1 << 20;
  for (const int end : ends) {
    static_cast<void>(setsockopt(end, SOL_SOCKET, SO_SNDBUF, &kRoom, sizeof(kRoom)));
  }
  std::vector<std::string> words = {"/proc/self/exe", std::to_string(3)};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<std::string> environment = settings;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    environment.emplace_back(*entry);
  }
  std::vector<char*> argv;
  for (std::string& word : words) {
    argv.push_back(word.data());
  }
  argv.push_back(nullptr);
  std::vector<char*> envp;
  for (std::string& setting : environment) {
    envp.push_back(setting.data());
  }
  envp.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 3);
  const int error =
      posix_spawn(&pid, "/proc/self/exe", &actions, nullptr, argv.data(), envp.data());
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  TESSERA_CHECK(error == 0, "the test cannot start itself");
  return ends[0];
}

ChildProcess::~ChildProcess() {
  kill();
}

void ChildProcess::send(int signal) const {
  ::kill(pid_, signal);
}

void ChildProcess::kill() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
}

int ChildProcess::leave() {
  lines_.write("exit");
  while (!lines_.read(kPatience).empty()) {
  }
  int status = 0;
  // The channel is closed: it ended, or hangs after its last line.
  for (int tries = 0; tries < 200; ++tries) {
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      pid_ = -1;
      return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }
    poll(nullptr, 0, 50);
  }
  kill();
  return -1;
}

void ChildProcess::expect_line(std::string_view expected) {
  EXPECT_EQ(lines_.read(kPatience), expected);
}

bool ChildProcess::await_line(std::string_view expected) {
  while (true) {
    const std::string line = lines_.read(kPatience);
    if (line == expected) {
      return true;
    }
    if (line.empty()) {
      return false;
    }
  }
}

std::string to_text(const LandingRegion& region) {
  std::ostringstream text;
  text << region.rank << ' ' << to_hex(region.worker_address) << ' ' << region.connection << ' '
       << region.base_address << ' ' << to_hex(region.remote_key) << ' ' << region.num_slots << ' '
       << region.slot_bytes;
  return text.str();
}

LandingRegion region_from(const std::string& text) {
  std::istringstream in(text);
  LandingRegion region;
  std::string address;
  std::string key;
  in >> region.rank >> address >> region.connection >> region.base_address >> key >>
      region.num_slots >> region.slot_bytes;
  region.worker_address = from_hex(address);
  region.remote_key = from_hex(key);
  return region;
}

void fill_image(std::span<char> image, uint64_t seed, int32_t index) {
  uint64_t state = first_state(seed, index);
  for (size_t i = 0; i < image.size(); i += sizeof(state)) {
    const uint64_t word = next_random(state);
    std::memcpy(&image[i], &word, std::min(sizeof(word), image.size() - i));
  }
}

bool holds_image(std::span<const char> image, uint64_t seed, int32_t index) {
  std::vector<char> expected(image.size());
  fill_image(expected, seed, index);
  return std::memcmp(expected.data(), image.data(), image.size()) == 0;
}

}  // namespace tessera
