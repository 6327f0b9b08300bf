// Where carrier, transport and router leave what they have to say to a decode engine's thread; and
// the list of reservations that wait for their router, so that attach() can answer at once. Made
// first and destroyed last.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <variant>
#include <vector>

#include "engine/handoff/handoff_link.h"
#include "engine/handoff/mailbox.h"
#include "engine/handoff/worker_services.h"
#include "engine/transport/kv_receiver.h"

namespace tessera {

class DecodeMailbox final : public PrefillDoor, public KvReceiver::Listener {
 public:
  struct LinkOpened {
    LinkId link = 0;
    std::shared_ptr<PrefillLink> door;  ///< shared with the carrier's call
  };
  struct LinkMessage {
    LinkId link = 0;
    PrefillMessage message;
  };
  struct LinkClosed {
    LinkId link = 0;
  };
  struct Landed {
    int32_t rank = 0;
    HandoffKey key;
  };
  struct ConnectionFailed {
    uint64_t connection = 0;
    Status status;
  };
  struct Attached {
    AttachRequest request;
    std::shared_ptr<TokenSink> sink;
  };
  struct Cancelled {
    HandoffKey key;
  };
  using Event = std::
      variant<LinkOpened, LinkMessage, LinkClosed, Landed, ConnectionFailed, Attached, Cancelled>;

  explicit DecodeMailbox(size_t max_events = 65536) : mailbox_(max_events) {}

  void set_waker(std::function<void()> waker) { mailbox_.set_waker(std::move(waker)); }
  void take(std::vector<Event>& events) { mailbox_.take(events); }

  [[nodiscard]] LinkId on_link_opened(std::shared_ptr<PrefillLink> link) override;
  [[nodiscard]] Status on_link_message(LinkId link, PrefillMessage message) override;
  void on_link_closed(LinkId link) override;
  void on_landed(int32_t rank, const HandoffKey& key) override;
  void on_connection_failed(int32_t rank, uint64_t connection, const Status& status) override;

  /// As DecodeWorker::attach(); on success the engine thread owns the sink's calls. Any thread.
  [[nodiscard]] Status attach(AttachRequest request, std::shared_ptr<TokenSink> sink);
  /// Dropped when the mailbox is full and the key is not reserved here. Any thread.
  void cancel(const HandoffKey& key);

  /// From now on attach() takes `key`, once. Engine thread only.
  void expect_attach(const HandoffKey& key);
  void forget_attach(const HandoffKey& key);

 private:
  Mailbox<Event> mailbox_;
  std::atomic<LinkId> next_link_{1};
  std::mutex mutex_;                                               // guards expected_
  std::unordered_map<HandoffKey, bool, HandoffKeyHash> expected_;  // to: is attached
};

}  // namespace tessera
