// Workers, a door and sinks whose calls a test makes and waits for. Any thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/handoff/handoff_link.h"
#include "engine/handoff/worker_services.h"

namespace tessera::rpc::testing {

/// State that several threads change and a test waits for.
class Watched {
 public:
  /// False after twenty seconds.
  template <typename Condition>
  [[nodiscard]] bool wait_blocking(Condition condition) const {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), condition);
  }

 protected:
  template <typename Change>
  void change(Change make) {
    {
      const std::lock_guard lock(mutex_);
      make();
    }
    changed_.notify_all();
  }
  mutable std::mutex mutex_;  // guards what the derived class holds

 private:
  mutable std::condition_variable changed_;
};

[[nodiscard]] inline WorkerInfo make_info() {
  WorkerInfo info;
  info.model_name = "fake";
  info.model_fingerprint = "model";
  info.layout_fingerprint = "layout";
  info.epoch = 77;
  info.max_model_len = 64;
  info.vocab_size = 1000;
  info.max_local_prefill_tokens = 8;
  info.attention = "tpla 2 slices on 2 ranks";
  return info;
}

[[nodiscard]] inline HandoffKey make_key(uint64_t number) {
  return {{0xabcU, number}, 1};
}

[[nodiscard]] inline TokenEvent make_token(int64_t index,
                                           std::optional<FinishReason> reason = {},
                                           int32_t choice = 0) {
  TokenEvent event;
  event.choice = choice;
  event.index = index;
  event.token_id = static_cast<int32_t>(100 + index);
  event.finish_reason = reason;
  return event;
}

/// What both kinds of fake workers keep: calls by key, and cancels.
template <typename Request, typename Sink>
class FakeCalls : public Watched {
 public:
  struct Call {
    Request request;
    std::shared_ptr<Sink> sink;
  };

  /// Later calls are refused with `status`.
  void refuse(Status status) {
    change([&] { refusal_ = std::move(status); });
  }
  /// Waits for the call of `key`; its sink is null when none comes. The fake forgets the call.
  [[nodiscard]] Call take_blocking(const HandoffKey& key) {
    Call call;
    if (wait_blocking([&] { return calls_.count(key) == 1; })) {
      const std::lock_guard lock(mutex_);
      call = std::move(calls_[key]);
      calls_.erase(key);
    }
    return call;
  }
  [[nodiscard]] bool wait_for_cancel_blocking(const HandoffKey& key) const {
    return wait_blocking([&] { return cancels_.count(key) == 1; });
  }
  [[nodiscard]] int num_cancels(const HandoffKey& key) const {
    const std::lock_guard lock(mutex_);
    const auto entry = cancels_.find(key);
    return entry == cancels_.end() ? 0 : entry->second;
  }

 protected:
  Status take(const HandoffKey& key, Request request, std::shared_ptr<Sink> sink) {
    Status status;
    change([&] {
      status = refusal_;
      if (status.is_ok()) {
        calls_[key] = {std::move(request), std::move(sink)};
      }
    });
    return status;
  }
  void note_cancel(const HandoffKey& key) {
    change([&] { ++cancels_[key]; });
  }

 private:
  Status refusal_;
  std::map<HandoffKey, Call> calls_;
  std::map<HandoffKey, int> cancels_;
};

class FakePrefillWorker final : public PrefillWorker,
                                public FakeCalls<PrefillRequest, PrefillSink> {
 public:
  Status prefill(PrefillRequest request, std::shared_ptr<PrefillSink> sink) override {
    const HandoffKey key = request.key;
    return take(key, std::move(request), std::move(sink));
  }
  void cancel(const HandoffKey& key) override { note_cancel(key); }
  [[nodiscard]] WorkerLoad load() const override { return {}; }
  [[nodiscard]] const WorkerInfo& info() const override { return info_; }

 private:
  const WorkerInfo info_ = make_info();
};

/// An attach as AttachRequest, a generate as the same with its prompt.
struct DecodeCall {
  AttachRequest attach;
  std::vector<int32_t> prompt_ids;
};

class FakeDecodeWorker final : public DecodeWorker, public FakeCalls<DecodeCall, TokenSink> {
 public:
  Status attach(AttachRequest request, std::shared_ptr<TokenSink> sink) override {
    const HandoffKey key = request.key;
    return take(key, {std::move(request), {}}, std::move(sink));
  }
  Status generate(const HandoffKey& key,
                  GenerationRequest request,
                  std::shared_ptr<TokenSink> sink) override {
    AttachRequest attach;
    attach.key = key;
    attach.sampling = std::move(request.sampling);
    attach.num_choices = request.num_choices;
    return take(key, {std::move(attach), std::move(request.prompt_ids)}, std::move(sink));
  }
  void cancel(const HandoffKey& key) override { note_cancel(key); }
  [[nodiscard]] WorkerLoad load() const override { return {}; }
  [[nodiscard]] const WorkerInfo& info() const override { return info_; }

 private:
  const WorkerInfo info_ = make_info();
};

/// Keeps what arrives; counts calls after the end.
class RecordingSink final : public PrefillSink, public Watched {
 public:
  void on_reserved(const std::string& address) override {
    change([&] {
      num_late_calls_ += is_over_;
      reserved_ = address;
    });
  }
  void on_token(const TokenEvent& event) override {
    change([&] {
      num_late_calls_ += is_over_;
      tokens_.push_back(event);
    });
  }
  void on_handed_over() override {
    change([&] {
      num_late_calls_ += is_over_;
      is_over_ = true;
    });
  }
  void on_error(const Status& status) override {
    change([&] {
      num_late_calls_ += is_over_;
      is_over_ = true;
      error_ = status;
    });
  }

  [[nodiscard]] bool wait_until_over_blocking() const {
    return wait_blocking([this] { return is_over_; });
  }
  [[nodiscard]] bool wait_for_tokens_blocking(size_t count) const {
    return wait_blocking([&] { return tokens_.size() >= count; });
  }
  [[nodiscard]] std::vector<TokenEvent> tokens() const {
    const std::lock_guard lock(mutex_);
    return tokens_;
  }
  [[nodiscard]] std::string reserved() const {
    const std::lock_guard lock(mutex_);
    return reserved_;
  }
  [[nodiscard]] Status error() const {
    const std::lock_guard lock(mutex_);
    return error_;
  }
  [[nodiscard]] int num_late_calls() const {
    const std::lock_guard lock(mutex_);
    return num_late_calls_;
  }

 private:
  std::string reserved_;
  std::vector<TokenEvent> tokens_;
  Status error_;
  bool is_over_ = false;
  int num_late_calls_ = 0;
};

/// Keeps messages and links; answers with `answer` when one is set.
class FakeDoor final : public PrefillDoor, public Watched {
 public:
  LinkId on_link_opened(std::shared_ptr<PrefillLink> link) override {
    LinkId id = 0;
    change([&] {
      id = ++num_opened_;
      links_[id] = std::move(link);
    });
    return id;
  }
  Status on_link_message(LinkId link, PrefillMessage message) override {
    Status status;
    change([&] {
      messages_.push_back(std::move(message));
      num_late_calls_ += links_.count(link) == 0;
      status = refusal_;
    });
    return status;
  }
  void on_link_closed(LinkId link) override {
    change([&] {
      ++num_closed_;
      links_.erase(link);
    });
  }

  void refuse(Status status) {
    change([&] { refusal_ = std::move(status); });
  }
  /// Null when it does not open.
  [[nodiscard]] std::shared_ptr<PrefillLink> link_blocking(LinkId id) const {
    if (!wait_blocking([&] { return links_.count(id) == 1; })) {
      return nullptr;
    }
    const std::lock_guard lock(mutex_);
    return links_.at(id);
  }
  [[nodiscard]] bool wait_for_messages_blocking(size_t count) const {
    return wait_blocking([&] { return messages_.size() >= count; });
  }
  [[nodiscard]] bool wait_for_closed_blocking(int count) const {
    return wait_blocking([&] { return num_closed_ >= count; });
  }
  [[nodiscard]] std::vector<PrefillMessage> messages() const {
    const std::lock_guard lock(mutex_);
    return messages_;
  }
  [[nodiscard]] int num_closed() const {
    const std::lock_guard lock(mutex_);
    return num_closed_;
  }
  [[nodiscard]] int num_late_calls() const {
    const std::lock_guard lock(mutex_);
    return num_late_calls_;
  }

 private:
  Status refusal_;
  LinkId num_opened_ = 0;
  std::map<LinkId, std::shared_ptr<PrefillLink>> links_;
  std::vector<PrefillMessage> messages_;
  int num_closed_ = 0;
  int num_late_calls_ = 0;
};

}  // namespace tessera::rpc::testing
