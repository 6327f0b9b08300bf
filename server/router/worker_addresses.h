// Where workers are: static addresses, and DNS names that a thread resolves again and again
// (headless Services). A name that cannot be resolved keeps its last addresses.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/base/deadline.h"
#include "engine/base/result.h"
#include "server/router/worker_connector.h"

namespace tessera::router {

constexpr size_t kMaxWorkersPerRole = 256;

struct DnsName {
  std::string name;
  std::string port;
};

/// One role's list of workers as the operator wrote it.
struct WorkerSpec {
  std::vector<std::string> addresses;
  std::vector<DnsName> names;

  /// Parses "host:port,dns:name:port,[::1]:port". Errors: INVALID_ARGUMENT naming the entry.
  [[nodiscard]] static Result<WorkerSpec> parse(const std::string& text);
};

/// Every address of a name, each as "ip:port" or "[ip]:port". May block.
using Resolver = std::function<Result<std::vector<std::string>>(const DnsName&)>;
[[nodiscard]] Result<std::vector<std::string>> resolve_with_getaddrinfo_blocking(
    const DnsName& name);

/// The addresses of one role. Used by one thread.
class AddressBook final {
 public:
  AddressBook(WorkerSpec spec, Resolver resolver)
      : spec_(std::move(spec)), resolver_(std::move(resolver)) {}

  /// Resolves every name; static addresses first, then each name's, without repeats, at most
  /// kMaxWorkersPerRole. A failure keeps the name's old addresses and is logged once.
  [[nodiscard]] std::vector<std::string> refresh_blocking();
  [[nodiscard]] const WorkerSpec& spec() const noexcept { return spec_; }

 private:
  struct Known {
    std::vector<std::string> addresses;
    bool has_failed = false;
  };
  void resolve_blocking(const DnsName& name, Known& known);

  const WorkerSpec spec_;
  const Resolver resolver_;
  std::map<std::string, Known> known_;  // by "name:port"
};

/// Refreshes two books every period on a thread of its own and reports each role's addresses.
class AddressWatcher final {
 public:
  using Listener = std::function<void(WorkerRole, std::vector<std::string>)>;

  /// `listener` is called on the thread, also when nothing changed. Roles without names are
  /// reported once.
  AddressWatcher(AddressBook prefill,
                 AddressBook decode,
                 Deadline::Clock::duration period,
                 Listener listener);
  /// Waits for a resolution that is under way; the system's resolver bounds it.
  ~AddressWatcher();
  AddressWatcher(const AddressWatcher&) = delete;
  AddressWatcher& operator=(const AddressWatcher&) = delete;

 private:
  void run_thread(const std::stop_token& stop);

  AddressBook prefill_;  // of the thread
  AddressBook decode_;   // of the thread
  const Deadline::Clock::duration period_;
  const Listener listener_;
  std::mutex mutex_;  // guards nothing: the condition needs one to wait on
  std::condition_variable_any is_stopping_;
  std::jthread thread_;  // last: joined before what it uses dies
};

}  // namespace tessera::router
