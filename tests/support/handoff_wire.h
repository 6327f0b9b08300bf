// What lies between one prefill engine and decode groups of one process, and a router that attaches
// where a reservation was granted.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "engine/handoff/block_source.h"
#include "engine/handoff/decode_mailbox.h"
#include "engine/handoff/prefill_mailbox.h"
#include "engine/handoff/worker_services.h"
#include "tests/support/collecting_sink.h"
#include "tests/support/local_decode_port.h"
#include "tests/support/local_kv_transport.h"

namespace tessera::testing {

/// A cache whose blocks have images that are all alike.
class PlainBlockSource final : public BlockSource {
 public:
  PlainBlockSource(char* base, int64_t block_bytes, int32_t num_images = 1)
      : base_(base), block_bytes_(block_bytes), num_images_(num_images) {}
  const void* image_address(int32_t block_id, int32_t /*image*/) const override {
    return base_ + block_id * block_bytes_;
  }
  int64_t image_bytes(int32_t /*image*/) const override { return block_bytes_; }
  int32_t num_images() const override { return num_images_; }

 private:
  char* base_;
  int64_t block_bytes_;
  int32_t num_images_;
};

/// What decode says; once that was an error the client hears no more, as behind a router, though
/// prefill may not know yet and send its token.
class DecodeLeg final : public TokenSink {
 public:
  explicit DecodeLeg(std::shared_ptr<CollectingSink> client) : client_(std::move(client)) {}
  void on_token(const TokenEvent& event) override { client_->on_token(event); }
  void on_error(const Status& status) override {
    const std::lock_guard lock(mutex_);
    has_failed_ = true;
    client_->on_error(status);
  }
  void pass_on_unless_failed(const TokenEvent& event) {
    const std::lock_guard lock(mutex_);
    if (!has_failed_) {
      client_->on_token(event);
    }
  }

 private:
  const std::shared_ptr<CollectingSink> client_;
  std::mutex mutex_;
  bool has_failed_ = false;
};

/// Passes everything to one CollectingSink and attaches on on_reserved().
class RoutingSink final : public PrefillSink {
 public:
  RoutingSink(PrefillRequest request,
              std::function<DecodeWorker*(const std::string&)> find_decode,
              std::shared_ptr<CollectingSink> client)
      : attach_{.key = request.key,
                .sampling = request.generation.sampling,
                .num_choices = request.generation.num_choices,
                .first_choice = request.generation.first_choice,
                .num_replayed_tokens = request.generation.num_replayed_tokens,
                .deadline = request.generation.deadline},
        find_decode_(std::move(find_decode)),
        client_(client),
        decode_leg_(std::make_shared<DecodeLeg>(std::move(client))) {}

  void on_token(const TokenEvent& event) override { decode_leg_->pass_on_unless_failed(event); }
  void on_error(const Status& status) override {
    ++num_ends;
    if (!is_attached_ && num_ends == 1) {
      client_->on_error(status);
    }
  }
  void on_reserved(const std::string& address) override {
    ++num_reserved;
    reserved_at = address;
    DecodeWorker* decode = attaches ? find_decode_(address) : nullptr;
    if (decode != nullptr) {
      is_attached_ = decode->attach(attach_, decode_leg_).is_ok();
    }
  }
  void on_handed_over() override {
    ++num_ends;
    is_handed_over = true;
  }

  bool attaches = true;  ///< set before use
  std::atomic<int> num_reserved{0};
  std::atomic<int> num_ends{0};
  std::atomic<bool> is_handed_over{false};
  std::string reserved_at;

 private:
  AttachRequest attach_;
  std::function<DecodeWorker*(const std::string&)> find_decode_;
  const std::shared_ptr<CollectingSink> client_;
  const std::shared_ptr<DecodeLeg> decode_leg_;
  std::atomic<bool> is_attached_{false};
};

}  // namespace tessera::testing
