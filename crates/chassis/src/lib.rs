//! One host's Open vSwitch and ovn-controller.
