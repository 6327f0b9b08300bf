// One end of a data link: a UCX worker of its own with one endpoint. A worker for each link keeps
// links apart: a peer that stops or dies in the middle of a write into a shared-memory queue blocks
// its own link only, and destroying the worker ends everything that this side does for the link.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"

struct ucp_context;
struct ucp_ep;
struct ucp_rkey;
struct ucp_worker;

namespace tessera {

class UcxContext;

/// One thread at a time; callbacks run inside progress() and the destructor.
class UcxLink final {
 public:
  enum class MessageKind : uint8_t { kHello = 1, kReady, kAck, kGoodbye };
  struct Message {
    MessageKind kind = MessageKind::kHello;
    std::string bytes;
  };

  /// The context outlives the link. Errors: UNAVAILABLE.
  [[nodiscard]] static Result<std::unique_ptr<UcxLink>> create(UcxContext& context);
  /// Drops what is in flight. begin_close() and is_closed() first, where waiting is possible.
  ~UcxLink();
  UcxLink(const UcxLink&) = delete;
  UcxLink& operator=(const UcxLink&) = delete;

  /// Where the other end connects to.
  [[nodiscard]] const std::string& address() const noexcept { return address_; }
  /// Signals when progress() has work; valid after a successful arm().
  [[nodiscard]] int event_fd() const noexcept { return event_fd_; }

  /// Errors: UNAVAILABLE (no lane that reports failures, or a broken address).
  [[nodiscard]] Status connect(const std::string& remote_address);
  [[nodiscard]] bool is_connected() const noexcept { return endpoint_ != nullptr; }
  /// For put(). After connect(). Errors: UNAVAILABLE.
  [[nodiscard]] Status import_remote_key(const std::string& remote_key);
  /// Whether the key is of memory that the host, where it is, can read.
  [[nodiscard]] static bool is_host_key(const std::string& remote_key);
  /// Where this process itself can store what the peer reads at `remote_address`: host memory that
  /// both have mapped, until the link is destroyed, whatever becomes of the peer. Null: put().
  [[nodiscard]] std::byte* find_shared(uint64_t remote_address) const;
  /// `source` stays valid until a later flush() is done. Of a GPU's memory, the work that wrote it
  /// is complete.
  void put(const void* source, int64_t num_bytes, uint64_t remote_address);
  /// Sources of put() are in a GPU's memory from now on, so that UCX need not ask each time.
  void set_cuda_sources() noexcept { has_cuda_sources_ = true; }
  /// Calls `done` when all earlier puts are visible at the peer, or never (see failure()).
  void flush(std::function<void()> done);
  void send(MessageKind kind, std::string bytes);

  /// True when anything happened.
  bool progress();
  /// False when there is work already: do not sleep.
  [[nodiscard]] bool arm();
  /// What has come since the last call.
  [[nodiscard]] std::vector<Message> take_messages();
  /// Not ok once the endpoint or an operation failed.
  [[nodiscard]] const Status& failure() const noexcept { return failure_; }
  /// Transport and device that carry the data, "tcp/lo" or "posix/memory". Empty before connect().
  [[nodiscard]] std::string lane() const;

  /// Messages, flushes or the close are under way.
  [[nodiscard]] bool has_operations() const noexcept {
    return !operations_.empty() || num_closes_ > 0;
  }

  /// By force: what is in flight is cancelled. progress() goes on until is_closed().
  void begin_close();
  [[nodiscard]] bool is_closed() const noexcept { return is_closing_ && num_closes_ == 0; }
  [[nodiscard]] bool is_closing() const noexcept { return is_closing_; }

 private:
  struct Operation {
    UcxLink* link = nullptr;
    std::string payload;
    std::function<void()> done;
    std::list<Operation>::iterator self;
  };
  friend struct UcxCallbacks;

  UcxLink(ucp_worker* worker, std::string address, int event_fd);
  [[nodiscard]] Status register_handlers();
  Operation& new_operation(std::string payload, std::function<void()> done);
  void fail(const Status& status);
  /// `request` is what a ucp_*_nbx call returned.
  void track(void* request, Operation& operation, const char* what);

  ucp_worker* worker_;
  ucp_ep* endpoint_ = nullptr;
  ucp_rkey* remote_key_ = nullptr;
  std::string address_;
  int event_fd_;
  std::list<Operation> operations_;  // in flight; UCX holds pointers to them
  std::vector<Message> inbox_;
  Status failure_;
  bool has_cuda_sources_ = false;
  bool is_closing_ = false;
  int num_closes_ = 0;
};

}  // namespace tessera
