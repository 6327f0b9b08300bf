// Who may say that a waiting group must not start yet, though there is room. Engine thread only.
#pragma once

namespace tessera {

struct SequenceGroup;

class StartGate {
 public:
  StartGate() = default;
  virtual ~StartGate() = default;
  StartGate(const StartGate&) = delete;
  StartGate& operator=(const StartGate&) = delete;

  /// Groups that may not start are passed over and keep their place.
  [[nodiscard]] virtual bool may_start(const SequenceGroup& group) = 0;
};

}  // namespace tessera
