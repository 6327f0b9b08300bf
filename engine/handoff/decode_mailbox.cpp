#include "engine/handoff/decode_mailbox.h"

#include <utility>

#include "engine/base/text.h"

namespace tessera {

LinkId DecodeMailbox::on_link_opened(std::shared_ptr<PrefillLink> link) {
  const LinkId id = next_link_.fetch_add(1);
  mailbox_.post(LinkOpened{id, std::move(link)});
  return id;
}

Status DecodeMailbox::on_link_message(LinkId link, PrefillMessage message) {
  if (!mailbox_.try_post(LinkMessage{link, std::move(message)})) {
    return resource_exhausted("the decode leader's mailbox is full");
  }
  return Status::ok();
}

void DecodeMailbox::on_link_closed(LinkId link) {
  mailbox_.post(LinkClosed{link});
}

void DecodeMailbox::on_landed(int32_t rank, const HandoffKey& key) {
  mailbox_.post(Landed{rank, key});
}

void DecodeMailbox::on_connection_failed(int32_t /*rank*/,
                                         uint64_t connection,
                                         const Status& status) {
  mailbox_.post(ConnectionFailed{connection, status});
}

Status DecodeMailbox::attach(AttachRequest request, std::shared_ptr<TokenSink> sink) {
  {
    const std::lock_guard lock(mutex_);
    const auto expected = expected_.find(request.key);
    if (expected == expected_.end()) {
      return not_found(str_cat("no reservation ", request.key.to_string()));
    }
    if (std::exchange(expected->second, true)) {
      return {StatusCode::kAlreadyExists,
              str_cat("reservation ", request.key.to_string(), " is attached to already")};
    }
  }
  mailbox_.post(Attached{std::move(request), std::move(sink)});  // at most one a reservation
  return Status::ok();
}

void DecodeMailbox::cancel(const HandoffKey& key) {
  bool is_expected = false;
  {
    const std::lock_guard lock(mutex_);
    is_expected = expected_.contains(key);
  }
  if (is_expected) {
    mailbox_.post(Cancelled{key});
  } else {
    (void)mailbox_.try_post(Cancelled{key});
  }
}

void DecodeMailbox::expect_attach(const HandoffKey& key) {
  const std::lock_guard lock(mutex_);
  expected_.try_emplace(key, false);
}

void DecodeMailbox::forget_attach(const HandoffKey& key) {
  const std::lock_guard lock(mutex_);
  expected_.erase(key);
}

}  // namespace tessera
