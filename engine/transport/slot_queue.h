// One rank as the sender sees it: which parcel lies in which landing slot, which wait for a slot,
// and what is to be announced again. No I/O. Transport thread only.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "engine/base/deadline.h"
#include "engine/transport/kv_sender.h"
#include "engine/transport/messages.h"

namespace tessera {

class SlotQueue final {
 public:
  using Time = Deadline::Clock::time_point;
  /// One put: the image into the slot.
  struct Put {
    int32_t slot = 0;
    const void* source = nullptr;
    int64_t num_bytes = 0;
    uint64_t checksum = 0;  ///< of the image; known when the put is finished
  };
  enum class Outcome : uint8_t {
    kNothing,  ///< an answer to nothing, or "later"
    kLanded,
    kDropped,
    kPutAgain,  ///< queued for its slot
    kGivenUp,   ///< damaged too often
  };
  struct Answer {
    Outcome outcome = Outcome::kNothing;
    HandoffKey key;
    int64_t num_bytes = 0;
  };

  SlotQueue(int32_t num_slots, int64_t slot_bytes, int32_t max_puts);

  void push(const Parcel& parcel) { waiting_.push_back(parcel); }
  /// Moves waiting parcels into free slots and appends the puts to start: about `max_bytes`, at
  /// least one if any can start.
  void start_puts(int64_t max_bytes, std::vector<Put>& puts);
  /// The put is visible at the peer.
  void finish_put(const Put& put);
  /// Appends what is to be announced: landed and not yet announced, or unanswered for
  /// `resend_period`.
  void take_due(Time now, Deadline::Clock::duration resend_period, std::vector<Ready>& due);
  [[nodiscard]] Answer handle(const Ack& ack);
  /// Drops the waiting parcels of `key`. A slot that was announced is used again only once the peer
  /// has answered, whatever the answer. Puts that have begun still read memory of `key`.
  void abort(const HandoffKey& key);
  /// A put reads memory of `key`.
  [[nodiscard]] bool is_reading(const HandoffKey& key) const;
  /// A put reads memory of some key.
  [[nodiscard]] bool is_reading_any() const noexcept { return num_putting_ > 0; }
  /// Parcels wait, or slots are not free.
  [[nodiscard]] bool is_busy() const noexcept;

 private:
  enum class State : uint8_t { kFree, kToPut, kPutting, kToAnnounce, kAnnounced };
  struct Slot {
    State state = State::kFree;
    bool is_aborted = false;  ///< nobody asks for the outcome any more
    uint64_t generation = 0;
    Parcel parcel;
    uint64_t checksum = 0;
    int32_t num_puts = 0;
    Time announced;
  };

  void drop_waiting(const HandoffKey& key);
  void release(int32_t slot);
  Answer handle_damaged(int32_t slot);
  int64_t begin_put(int32_t slot, std::vector<Put>& puts);

  const int64_t slot_bytes_;
  const int32_t max_puts_;
  std::vector<Slot> slots_;
  std::vector<int32_t> free_;    ///< falling: the lowest are taken first, so that runs form
  std::vector<int32_t> to_put_;  ///< slots whose parcel is to be put again
  std::deque<Parcel> waiting_;
  int32_t num_putting_ = 0;
};

}  // namespace tessera
