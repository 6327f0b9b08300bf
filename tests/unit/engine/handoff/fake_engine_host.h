// The engine loop as a side sees it, without steps and threads: a test plays the loop.
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/handoff/handoff_side.h"
#include "engine/handoff/worker_services.h"

namespace tessera::testing {

/// Counts what a request's sink hears.
class CountingSink final : public PrefillSink {
 public:
  void on_token(const TokenEvent& /*event*/) override { ++num_tokens; }
  void on_error(const Status& status) override {
    ++num_ends;
    error = status;
  }
  void on_reserved(const std::string& address) override { reserved_at.push_back(address); }
  void on_handed_over() override {
    ++num_ends;
    is_handed_over = true;
  }

  int num_tokens = 0;
  int num_ends = 0;
  bool is_handed_over = false;
  Status error;
  std::vector<std::string> reserved_at;
};

class FakeEngineHost final : public EngineHost {
 public:
  explicit FakeEngineHost(int32_t num_blocks, int32_t num_stripes = 1)
      : allocator_(num_blocks, num_stripes), cache_(allocator_, "test") {}

  BlockAllocator& allocator() noexcept override { return allocator_; }
  PrefixCache* prefix_cache() noexcept override { return &cache_; }
  std::span<Sequence* const> running() const noexcept override { return running_; }
  int64_t num_seats_taken() const noexcept override {
    return static_cast<int64_t>(running_.size());
  }
  bool try_claim(const HandoffKey& key) override {
    const auto has_key = [&](const auto& group) { return group->key() == key; };
    return !is_claimed && std::none_of(groups_.begin(), groups_.end(), has_key);
  }
  bool is_claimed = false;  ///< as if a local request had every key

  void adopt_running(std::unique_ptr<SequenceGroup> group,
                     LandedPrompt prompt,
                     const std::vector<bool>& ended) override {
    last_ended = ended;
    last_other_images.clear();
    for (const Block& image : prompt.other_images) {
      last_other_images.push_back(image.id());
    }
    Sequence& first = *group->choices.front();
    first.table() = std::move(prompt.table);
    running_.push_back(&first);
    groups_.push_back(std::move(group));
  }
  void fail_group(SequenceGroup& group, const Status& status) override {
    group.sink->on_error(status);
    end_group(group);
  }
  void end_group(SequenceGroup& group) override {
    side->on_group_end(group);
    std::erase(running_, group.choices.front().get());
    std::erase_if(groups_, [&](const auto& entry) { return entry.get() == &group; });
  }

  SequenceGroup& add(std::unique_ptr<SequenceGroup> group) {
    groups_.push_back(std::move(group));
    return *groups_.back();
  }
  /// Null when it has ended.
  [[nodiscard]] SequenceGroup* find(const HandoffKey& key) {
    for (const auto& group : groups_) {
      if (group->key() == key) {
        return group.get();
      }
    }
    return nullptr;
  }
  void end_all() {
    while (!groups_.empty()) {
      fail_group(*groups_.back(), unavailable("the test ends"));
    }
  }
  [[nodiscard]] size_t num_groups() const { return groups_.size(); }

  HandoffSide* side = nullptr;
  std::vector<bool> last_ended;
  std::vector<int32_t> last_other_images;  ///< of the last one adopted

 private:
  BlockAllocator allocator_;
  PrefixCache cache_;
  std::vector<Sequence*> running_;
  std::vector<std::unique_ptr<SequenceGroup>> groups_;
};

/// 1, 2, 3, … from `seed` on.
inline std::vector<int32_t> make_prompt(int64_t num_tokens, int32_t seed = 0) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < num_tokens; ++i) {
    ids.push_back(static_cast<int32_t>((seed + i) % 40) + 1);
  }
  return ids;
}

inline HandoffKey make_key(uint64_t request, uint32_t attempt = 1) {
  return {.request = {.high = 7, .low = request}, .attempt = attempt};
}

}  // namespace tessera::testing
