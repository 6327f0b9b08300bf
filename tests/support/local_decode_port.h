// A DecodePort that calls PrefillDoors of the same process; a test can lose messages and break
// links. Any thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "engine/handoff/handoff_link.h"

namespace tessera::testing {

class LocalDecodePort final : public DecodePort {
 public:
  explicit LocalDecodePort(Listener& listener) : listener_(listener) {}

  void add_leader(const std::string& address, PrefillDoor& door) {
    const std::lock_guard lock(mutex_);
    doors_[address] = &door;
  }
  void remove_leader(const std::string& address) {
    const std::lock_guard lock(mutex_);
    doors_.erase(address);
  }
  /// Prefill's messages for which it is true are lost. Set before use.
  std::function<bool(const PrefillMessage&)> loses_to_decode;
  /// Decode's. Set before use.
  std::function<bool(const DecodeMessage&)> loses_to_prefill;

  LinkId open(const std::string& address) override {
    LinkId id = 0;
    PrefillDoor* door = nullptr;
    {
      const std::lock_guard lock(mutex_);
      id = ++last_link_;
      ++num_opened_;
      const auto found = doors_.find(address);
      door = found == doors_.end() ? nullptr : found->second;
    }
    if (door == nullptr) {
      listener_.on_link_closed(id, unavailable("nobody listens at " + address));
      return id;
    }
    const LinkId far_id = door->on_link_opened(std::make_shared<FarEnd>(*this, id));
    const std::lock_guard lock(mutex_);
    links_[id] = {door, far_id};
    return id;
  }
  void send(LinkId link, PrefillMessage message) override {
    const End end = find(link);
    if (end.door == nullptr || (loses_to_decode && loses_to_decode(message))) {
      return;
    }
    if (!end.door->on_link_message(end.far_id, std::move(message)).is_ok()) {
      break_link(link);
    }
  }
  void close(LinkId link) override { break_link(link); }

  void break_link(LinkId link) {
    const End end = take(link);
    if (end.door != nullptr) {
      end.door->on_link_closed(end.far_id);
      listener_.on_link_closed(link, unavailable("the link was cut"));
    }
  }
  [[nodiscard]] LinkId last_link() const {
    const std::lock_guard lock(mutex_);
    return last_link_;
  }
  [[nodiscard]] size_t num_links() const {
    const std::lock_guard lock(mutex_);
    return links_.size();
  }

 private:
  struct End {
    PrefillDoor* door = nullptr;
    LinkId far_id = 0;
  };
  class FarEnd final : public PrefillLink {
   public:
    FarEnd(LocalDecodePort& port, LinkId id) : port_(port), id_(id) {}
    void send(DecodeMessage message) override { port_.deliver(id_, std::move(message)); }
    void close(const Status& status) override { port_.close_from_decode(id_, status); }

   private:
    LocalDecodePort& port_;
    const LinkId id_;
  };

  void deliver(LinkId link, DecodeMessage message) {
    if (find(link).door != nullptr && !(loses_to_prefill && loses_to_prefill(message))) {
      listener_.on_link_message(link, std::move(message));
    }
  }
  void close_from_decode(LinkId link, const Status& status) {
    const End end = take(link);
    if (end.door != nullptr) {
      listener_.on_link_closed(link, status);
      end.door->on_link_closed(end.far_id);
    }
  }
  End find(LinkId link) const {
    const std::lock_guard lock(mutex_);
    const auto found = links_.find(link);
    return found == links_.end() ? End{} : found->second;
  }
  End take(LinkId link) {
    const std::lock_guard lock(mutex_);
    const auto found = links_.find(link);
    if (found == links_.end()) {
      return {};
    }
    const End end = found->second;
    links_.erase(found);
    return end;
  }

  Listener& listener_;
  mutable std::mutex mutex_;  // guards all below
  std::map<std::string, PrefillDoor*> doors_;
  std::map<LinkId, End> links_;
  LinkId last_link_ = 0;
  int64_t num_opened_ = 0;
};

}  // namespace tessera::testing
