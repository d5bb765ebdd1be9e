"""PPO in parts: rollout, rewards, advantages, KL control, pretraining mix, invariants; functions, and no loop."""
